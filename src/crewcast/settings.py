"""Every setting, listed once: flags, `CREWCAST_*` variables, `crewcast.toml` and the docs come from here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crewcast import setting_values as parse
from crewcast.core.node import Role

VARIABLE_PREFIX = "CREWCAST_"


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` turns a text (or a TOML value) into the value, raising ValueError with a reason."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    commands: tuple[str, ...] = ("dev", "serve")
    metavar: str | None = None
    per_crew: bool = False  # a crew may have its own, in the file's table [crews.NAME]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()


SETTINGS: tuple[Setting, ...] = (
    Setting("host", parse.text, "127.0.0.1", "address to listen on", metavar="ADDRESS"),
    Setting("port", parse.whole(0, 65535), 8000, "port to listen on; 0 takes a free one", metavar="PORT"),
    Setting(
        "token",
        parse.text,
        None,
        "bearer token that callers need; `dev` makes one up. Flags show in process lists: better a variable or token_file",
        metavar="TOKEN",
    ),
    Setting("token_file", parse.path, None, "file whose first line is the bearer token", metavar="FILE"),
    Setting(
        "data_dir",
        parse.path,
        Path(".crewcast"),
        "folder for the database, logs and keys; one server at a time",
        commands=("dev", "serve", "secret", "migrate"),
        metavar="DIR",
    ),
    Setting(
        "database_url",
        parse.database_url,
        None,
        "PostgreSQL database that many nodes share, postgresql://USER:PASSWORD@HOST:PORT/NAME, instead of the file in "
        "data_dir. Flags show in process lists: better a variable if it has a password",
        commands=("dev", "serve", "secret", "migrate"),
        metavar="URL",
    ),
    Setting(
        "roles",
        parse.roles,
        tuple(Role),
        "what this node does: api answers HTTP, worker runs crews, dispatcher delivers. Fewer than all need database_url",
        metavar="ROLE,...",
    ),
    Setting(
        "node_name",
        parse.text,
        None,
        "what this node is called where nodes are listed. Default: the host's name and the process's number",
        metavar="NAME",
    ),
    Setting(
        "lease",
        parse.lease,
        60.0,
        "seconds after which others take over the runs and deliveries of a node that is gone; at least 1",
        metavar="SECONDS",
    ),
    Setting(
        "key",
        parse.key,
        None,
        "the master key itself, 32 bytes in base64. A flag shows in process lists: better a variable or key_file",
        commands=("dev", "serve", "secret"),
        metavar="KEY",
    ),
    Setting(
        "key_file",
        parse.path,
        None,
        "file with the master key that signing secrets derive from; made if absent. Default: secret.key in data_dir",
        commands=("dev", "serve", "secret"),
        metavar="FILE",
    ),
    Setting(
        "default_crew",
        parse.text,
        None,
        "with several crews: the one that /inputs and /kickoff mean. Default: none, /crews/NAME/... is asked",
        metavar="NAME",
    ),
    Setting(
        "python",
        parse.text,
        None,
        "interpreter that runs the crews of all projects. Default: each project's .venv, else Crewcast's own",
        metavar="PYTHON",
    ),
    Setting(
        "stub_llm",
        parse.flag,
        False,
        "answer every LLM call from the built-in offline LLM; no key is needed",
        commands=("dev",),
    ),
    Setting(
        "stub_delay",
        parse.seconds,
        0.05,
        "seconds that the offline LLM takes for a call",
        commands=("dev",),
        metavar="SECONDS",
    ),
    Setting(
        "drain", parse.seconds, 30.0, "seconds that running crews may go on after SIGTERM", metavar="SECONDS"
    ),
    Setting(
        "public_url",
        parse.public_url,
        None,
        "where people reach this server, for the links in reviews. Default: none; of `dev`, the address it listens on",
        metavar="URL",
    ),
    Setting(
        "max_runs",
        parse.whole(1, 10_000),
        16,
        "crews running at once; a crew's own: how many of these may be of it",
        metavar="N",
        per_crew=True,
    ),
    Setting(
        "max_runs_per_token",
        parse.whole(0, 10_000),
        0,
        "crews running at once that one token started; 0 sets no limit",
        metavar="N",
    ),
    Setting(
        "max_attempts",
        parse.whole(1, 100),
        2,
        "times that a run may be tried which a crash cut; it goes on from its last finished task",
        metavar="N",
        per_crew=True,
    ),
    Setting(
        "run_timeout",
        parse.seconds,
        0.0,
        "seconds that a run may work in all, waits for a person not counted; 0 sets no limit",
        metavar="SECONDS",
        per_crew=True,
    ),
    Setting(
        "stall_timeout",
        parse.seconds,
        1800.0,
        "seconds without a sign of progress after which a crew's process is ended as cut by a crash; 0 waits for ever",
        metavar="SECONDS",
        per_crew=True,
    ),
    Setting(
        "stop_grace",
        parse.seconds,
        10.0,
        "seconds that a run which is stopped has to reach its next step, before its process is ended",
        metavar="SECONDS",
    ),
    Setting(
        "review_timeout",
        parse.seconds,
        0.0,
        "seconds that a run waits for a person; 0 waits for ever",
        metavar="SECONDS",
        per_crew=True,
    ),
    Setting(
        "review_default",
        parse.choice("approve", "reject", "fail"),
        "fail",
        "what comes of a review that nobody decides in time: approve, reject or fail",
        metavar="WORD",
        per_crew=True,
    ),
    Setting(
        "review_reminder",
        parse.rhythm,
        0.0,
        "seconds between reminders of a review that waits; 0 sends none",
        metavar="SECONDS",
        per_crew=True,
    ),
    Setting(
        "pass_feedback",
        parse.switch,
        True,
        "whether later tasks see what a person says with an approval: on or off",
        metavar="on|off",
        per_crew=True,
    ),
    Setting(
        "paused_status",
        parse.choice("awaiting_human_feedback", "running"),
        "awaiting_human_feedback",
        "the `status` of a run that waits for a person: awaiting_human_feedback, or running for clients that know no other",
        metavar="WORD",
    ),
    Setting(
        "max_event_bytes",
        parse.whole(4096, 1 << 30),
        256 * 1024,
        "longer webhook bodies are cut, with a marker",
        metavar="BYTES",
    ),
    Setting(
        "max_body_bytes",
        parse.whole(1024, 1 << 30),
        4 * 1024 * 1024,
        "longer request bodies are refused",
        metavar="BYTES",
    ),
    Setting(
        "delivery_timeout",
        parse.seconds,
        30.0,
        "seconds that one delivery may take, its answer included",
        metavar="SECONDS",
    ),
    Setting(
        "connect_timeout",
        parse.limit,
        10.0,
        "seconds that each step to a connection may take: the name's lookup, the connect, the TLS handshake",
        metavar="SECONDS",
    ),
    Setting(
        "response_timeout",
        parse.limit,
        None,
        "seconds that a subscriber may take to begin its answer. Default: what delivery_timeout leaves",
        metavar="SECONDS",
    ),
    Setting(
        "retry_schedule",
        parse.schedule,
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0),
        "seconds between the attempts for an event, the last repeated",
        metavar="S,S,...",
    ),
    Setting(
        "give_up_after",
        parse.seconds,
        259_200.0,
        "seconds after which an event that nobody takes is a dead letter",
        metavar="SECONDS",
    ),
    Setting(
        "crew_wait",
        parse.seconds,
        60.0,
        "seconds that a crew event waits for the run's other events at its origin",
        metavar="SECONDS",
    ),
    Setting(
        "signatures",
        parse.signatures,
        ("v1",),
        "how deliveries are signed: v1 (HMAC), or v1,v1a (ed25519 too, which takes some 40 % of the peak rate)",
        commands=("dev", "serve", "secret"),
        metavar="v1|v1,v1a",
    ),
    Setting(
        "origin_concurrency",
        parse.whole(1, 1024),
        64,
        "deliveries under way at once to one origin (scheme, host and port), from each dispatcher",
        metavar="N",
    ),
    Setting(
        "origin_rate",
        parse.rate,
        0.0,
        "deliveries that one origin is sent in a second, by all dispatchers together; 0 sets no limit",
        metavar="N",
    ),
    Setting(
        "retention",
        parse.seconds,
        2_592_000.0,
        "seconds after its end at which a run goes, with its events, deliveries and log; 0 keeps all",
        metavar="SECONDS",
    ),
    Setting(
        "allow_networks",
        parse.networks,
        (),
        "private networks that webhooks may go to, as CIDR",
        metavar="CIDR,...",
    ),
    Setting(
        "allow_hosts",
        parse.hosts,
        (),
        "host names whose addresses are not checked, each exact or as *.NAME",
        metavar="NAME,...",
    ),
    Setting(
        "deny_networks",
        parse.networks,
        (),
        "networks that webhooks never go to, whatever else allows them, as CIDR",
        metavar="CIDR,...",
    ),
    Setting(
        "proxy",
        parse.proxy,
        None,
        "HTTP proxy for webhooks to public addresses, http://[USER:PASSWORD@]HOST:PORT. "
        "Flags show in process lists: better a variable if it has a password",
        metavar="URL",
    ),
    Setting("log_level", parse.level, "info", "debug, info, warning or error", metavar="LEVEL"),
)


def of_command(command: str) -> list[Setting]:
    return [setting for setting in SETTINGS if command in setting.commands]


def shown_default(setting: Setting) -> str:
    value = setting.default
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
