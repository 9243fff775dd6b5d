"""The commands, their flags, and how they end: 0 done, 1 the run failed, 2 something to correct."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from crewcast import __version__
from crewcast.core.errors import CrewcastError

DESCRIPTION = """\
The open, self-hosted home for CrewAI projects, with webhook streaming you can trust.

  crewcast dev              serve the project in this folder on your laptop
  crewcast serve PROJECT    serve it in production; several side by side, too
  crewcast kickoff --watch topic=tea
                            start a run and watch it
"""


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="crewcast", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whole.add_argument("--version", action="version", version=f"crewcast {__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _serving(commands)
    _checking(commands)
    _asking(commands)
    _deciding(commands)
    _delivering(commands)
    _sharing(commands)
    _migrating(commands)
    _keys(commands)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    args = parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except CrewcastError as e:
        print(f"crewcast: {e}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] not in _SERVER_PARTS:
            raise
        print(f"crewcast: {e.name} is missing. Run: pip install 'crewcast[server]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of our output left
        return 0
    return status


_SERVER_PARTS = frozenset(
    {"asyncpg", "cryptography", "httptools", "msgspec", "starlette", "uvicorn", "uvloop", "yaml"}
)


def log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _serving(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from crewcast import config

    for name, text in (
        (
            "dev",
            "serve projects on a laptop: prints URL, token and a curl, follows edits; webhooks may go to loopback and http",
        ),
        (
            "serve",
            "serve projects in production: a token is required, webhooks go to https and public addresses",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument(
            "projects",
            metavar="[NAME=]PROJECT",
            nargs="*",
            help="folder of a CrewAI project, or FOLDER/MODULE:OBJECT for a crew, a flow, or what makes one"
            + (
                " (default: this folder)" if name == "dev" else "; none for a node whose roles have no worker"
            ),
        )
        config.add_flags(command, name)
        command.set_defaults(run=_run_serving, command=name)


def _run_serving(args: argparse.Namespace) -> int:
    from crewcast.cli import serving

    return serving.run(args)


def _checking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "check",
        help="load a project and tell what is found",
        description="Loads projects as a server would and tells what it found in each: its inputs, its tasks, and what "
        "is odd. The exit status is 1 if one cannot be served.",
    )
    command.add_argument(
        "projects",
        metavar="[NAME=]PROJECT",
        nargs="*",
        help="folder of a CrewAI project, or FOLDER/MODULE:OBJECT (default: this folder)",
    )
    command.add_argument("--python", metavar="PYTHON", help="interpreter that runs the crews of all projects")
    command.set_defaults(run=_run_checking)


def _run_checking(args: argparse.Namespace) -> int:
    from crewcast.cli import checking

    return checking.run(args)


def _asking(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    kickoff = commands.add_parser(
        "kickoff",
        help="start a run",
        description="Starts a run and prints its kickoff id. With --watch the exit status is the run's outcome.",
    )
    kickoff.add_argument(
        "inputs", nargs="*", metavar="key=value", help="an input; key:=JSON for other than text"
    )
    kickoff.add_argument("--crew", metavar="NAME", help="which crew, where the server has several")
    kickoff.add_argument("--watch", action="store_true", help="show the run as it happens, until it ends")
    kickoff.add_argument("--task-url", metavar="URL", help="taskWebhookUrl")
    kickoff.add_argument("--step-url", metavar="URL", help="stepWebhookUrl")
    kickoff.add_argument("--crew-url", metavar="URL", help="crewWebhookUrl")
    kickoff.add_argument("--human-url", metavar="URL", help="humanInputWebhookUrl")
    kickoff.add_argument("--meta", metavar="JSON", help="object that task and crew events echo")
    kickoff.add_argument(
        "--key", metavar="TEXT", help="Idempotency-Key: repeating the command starts no second run"
    )
    kickoff.set_defaults(run=_run_asking, ask="kickoff")
    crews = commands.add_parser(
        "crews",
        help="list what a server serves",
        description="Lists the crews of a server, with their inputs.",
    )
    crews.set_defaults(run=_run_asking, ask="crews")
    for name, text in (
        ("status", "print the status of a run as JSON"),
        ("logs", "print what the crew wrote to stdout and stderr"),
        ("watch", "show a run as it happens, from its first event"),
    ):
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        command.add_argument("kickoff_id", metavar="ID")
        command.set_defaults(run=_run_asking, ask=name)
    for command in (kickoff, crews, *(commands.choices[name] for name in ("status", "logs", "watch"))):
        _add_server(command)


def _add_server(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", help="the server (default: CREWCAST_URL, else http://127.0.0.1:8000)")
    command.add_argument("--token", help="its bearer token (default: CREWCAST_TOKEN)")


def _run_asking(args: argparse.Namespace) -> int:
    from crewcast.cli import asking

    return asking.run(args)


def _deciding(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    reviews = commands.add_parser(
        "reviews",
        help="list the runs that wait for a person",
        description="Lists what waits for a decision, with the link that decides it; the newest question is the last.",
    )
    reviews.add_argument("--all", action="store_true", help="also what was decided, and by whom")
    reviews.add_argument("--json", action="store_true", help="all that is known of each, its output too")
    _add_server(reviews)
    reviews.set_defaults(run=_run_deciding, ask="reviews")
    for name, text, about in (
        ("approve", "let a run go on that waits for a person", "Accepts what a task made."),
        ("reject", "have a task done again, with feedback", "Has a task done again that waits for a person."),
    ):
        command = commands.add_parser(
            name, help=text, description=f"{about} Without ID: of the only run that waits."
        )
        command.add_argument("kickoff_id", metavar="ID", nargs="?")
        command.add_argument(
            "--task", metavar="TASK", help="the task that is meant: name, number from 1, or UUID"
        )
        command.add_argument(
            "--feedback",
            metavar="TEXT",
            required=name == "reject",
            help="what is to be changed" if name == "reject" else "what later tasks should know",
        )
        _add_actor(command, name)
    stop = commands.add_parser(
        "stop",
        help="end a run",
        description="Ends a run: at once if it is queued or waits, else at the crew's next step.",
    )
    stop.add_argument("kickoff_id", metavar="ID")
    _add_actor(stop, "stop")


def _add_actor(command: argparse.ArgumentParser, ask: str) -> None:
    command.add_argument(
        "--as", dest="actor", metavar="NAME", help="who says so, for the record (default: your login name)"
    )
    _add_server(command)
    command.set_defaults(run=_run_deciding, ask=ask)


def _run_deciding(args: argparse.Namespace) -> int:
    from crewcast.cli import reviews

    return reviews.run(args)


def _delivering(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    time = "a moment such as 2026-01-31T12:00:00Z, or how long ago, such as 2h or 3d"
    deliveries = commands.add_parser(
        "deliveries",
        help="what came of webhooks",
        description="Shows a run's lanes, attempts and dead letters; or what was not delivered, of all runs or as the flags say.",
    )
    deliveries.add_argument("kickoff_id", metavar="ID", nargs="?")
    deliveries.add_argument(
        "--undelivered", action="store_true", help="only what was given up (the default without ID)"
    )
    deliveries.add_argument("--origin", metavar="URL", help="what was given up at this origin")
    deliveries.add_argument("--since", metavar="TIME", help=f"what was given up since: {time}")
    redeliver = commands.add_parser(
        "redeliver",
        help="send events again",
        description="Sends events of a run again, or every dead letter of an origin since a time. Each keeps its webhook-id.",
    )
    redeliver.add_argument("kickoff_id", metavar="ID", nargs="?")
    redeliver.add_argument(
        "--lane", metavar="N", type=int, help="of this lane only (default: all lanes of the run)"
    )
    redeliver.add_argument("--seq", metavar="N", type=int, help="the event with this number in its run only")
    redeliver.add_argument(
        "--dead-only", action="store_true", help="only what was given up (always so with --origin)"
    )
    redeliver.add_argument("--origin", metavar="URL", help="what was given up at this origin")
    redeliver.add_argument("--since", metavar="TIME", help=time)
    redeliver.add_argument(
        "--to", metavar="URL", help="to another URL, without the authentication of the old one"
    )
    origins = commands.add_parser(
        "origins",
        help="how the servers are that webhooks go to",
        description="Lists the origins that are not well or for which events wait.",
    )
    origins.add_argument("--reset", metavar="ORIGIN", help="forget that it failed, and try it now")
    delete = commands.add_parser(
        "delete",
        help="remove a run wholly",
        description="Removes a run that is not running: its inputs, results, events, deliveries and log file.",
    )
    delete.add_argument("kickoff_id", metavar="ID")
    for name, command in (
        ("deliveries", deliveries),
        ("redeliver", redeliver),
        ("origins", origins),
        ("delete", delete),
    ):
        _add_server(command)
        command.set_defaults(run=_run_delivering, ask=name)


def _run_delivering(args: argparse.Namespace) -> int:
    from crewcast.cli import deliveries

    return deliveries.run(args)


def _sharing(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    command = commands.add_parser(
        "nodes",
        help="list the nodes that share a database",
        description="Lists the nodes that share a server's database: what each does, the crews that it runs, since when "
        "it is there and when it last said so. One that ended without a word is lapsed, and is forgotten after a day.",
    )
    _add_server(command)
    command.set_defaults(run=_run_sharing)


def _run_sharing(args: argparse.Namespace) -> int:
    from crewcast.cli import nodes

    return nodes.run(args)


def _migrating(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from crewcast import config

    command = commands.add_parser(
        "migrate",
        help="make or migrate the schema of a store, or move from SQLite to PostgreSQL",
        description="Makes the schema of the store that a server would use, or brings it to this version, and says what it "
        "did. A server does the same at its start; of several at once one does it and the others wait. With --from it "
        "copies a whole data folder of a stopped server into an empty PostgreSQL database instead: all or nothing, read "
        "back before it counts.",
    )
    command.add_argument("--dry-run", action="store_true", help="only say which migrations would be applied")
    command.add_argument(
        "--from",
        dest="source",
        metavar="sqlite:DIR",
        help="move what is in this data folder, as in sqlite:.crewcast",
    )
    command.add_argument(
        "--to",
        dest="target",
        metavar="postgresql://...",
        help="the empty database to move to (default: database_url). Flags show in process lists: better "
        "CREWCAST_DATABASE_URL if it has a password",
    )
    config.add_flags(command, "migrate")
    command.set_defaults(run=_run_migrating)


def _run_migrating(args: argparse.Namespace) -> int:
    from crewcast.cli import migrating

    return migrating.run(args)


def _keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from crewcast import config

    secret = commands.add_parser(
        "secret", help="signing secrets", description="Signing secrets of subscribers."
    )
    actions = secret.add_subparsers(metavar="ACTION", required=True)
    for name, text, about in (
        (
            "show",
            "print the secret that a subscriber verifies with",
            "Prints the newest secret that verifies what is sent to an origin (or to the origin of a URL).",
        ),
        (
            "list",
            "list the secrets that are in force",
            "Lists which generations of secrets sign, since when and until when; not the secrets themselves.",
        ),
        (
            "rotate",
            "begin a new secret",
            "Begins a new secret for an origin, or for all. Older ones sign beside it during the overlap.",
        ),
        (
            "replace",
            "take the present master key, where the former one is lost",
            "Takes the present master key for the data folder of a stopped server. Every secret is another then.",
        ),
    ):
        action = actions.add_parser(name, help=text, description=about)
        if name != "replace":
            which = "such as https://hooks.example.com" + (", or all" if name == "rotate" else "")
            action.add_argument("--origin", required=name != "list", metavar="URL", help=which)
        if name == "show":
            action.add_argument(
                "--public", action="store_true", help="the newest public key (whpk_...) instead, for v1a"
            )
        if name == "rotate":
            action.add_argument(
                "--overlap",
                metavar="TIME",
                default="24h",
                help="how long older secrets still sign, as in 90m, 24h, 7d; 0 ends them at once (default: 24h)",
            )
            action.add_argument(
                "--url",
                help="the running server (default: CREWCAST_URL, unless --data-dir or a database is given)",
            )
            action.add_argument("--token", help="its bearer token (default: CREWCAST_TOKEN)")
        config.add_flags(action, "secret")
        action.set_defaults(run=_run_secret, action=name)


def _run_secret(args: argparse.Namespace) -> int:
    from crewcast.cli import secrets

    return secrets.run(args)
