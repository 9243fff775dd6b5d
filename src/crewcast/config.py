"""Every setting, listed once: flags, `CREWCAST_*` variables, `crewcast.toml` and the docs come from here."""

import argparse
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crewcast import setting_values as parse
from crewcast.core.errors import UsageError

VARIABLE_PREFIX = "CREWCAST_"
FILE_NAME = "crewcast.toml"
CREWS = "crews"  # the file's table of what is different for some crews


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
        commands=("dev", "serve", "secret"),
        metavar="DIR",
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
        "deliveries under way at once to one origin (scheme, host and port)",
        metavar="N",
    ),
    Setting(
        "origin_rate",
        parse.rate,
        0.0,
        "deliveries that one origin is sent in a second; 0 sets no limit",
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


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force for one command, and the file that some came from."""

    command: str
    values: Mapping[str, Any] = field(repr=False)
    file: Path | None = None
    crews: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what is different for some

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def seconds(self, name: str) -> int:
        """A duration setting in microseconds."""
        return int(self.values[name] * 1_000_000)

    def of_crew(self, name: str) -> "Settings":
        """As they are for one crew."""
        return replace(self, values={**self.values, **self.crews.get(name, {})})


def of_command(command: str) -> list[Setting]:
    return [setting for setting in SETTINGS if command in setting.commands]


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Each setting of a command as a flag, absent by default so that other sources can speak."""
    for setting in of_command(command):
        text = setting.help.replace("%", "%%")
        if setting.parse is parse.flag:
            parser.add_argument(setting.flag, action="store_true", default=None, help=text)
        else:
            shown = "" if setting.default in (None, ()) else f" (default: {shown_default(setting)})"
            parser.add_argument(setting.flag, metavar=setting.metavar, help=text + shown)
    parser.add_argument(
        "--config", metavar="FILE", help=f"settings file (default: {FILE_NAME} if it is there)"
    )


def shown_default(setting: Setting) -> str:
    value = setting.default
    if isinstance(value, tuple):
        return ",".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def load(command: str, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Settings:
    """The settings of a command: flags first, then variables, then the file, then the defaults.

    Raises UsageError that names the source of a wrong value, or a name in the file that is not a setting.
    """
    listed = of_command(command)
    file = _file(flags.get("config"))
    table = _table(file) if file is not None else {}
    values = {}
    for setting in listed:
        flag, variable = flags.get(setting.name), environ.get(setting.variable)
        if flag is not None:
            values[setting.name] = _parsed(setting, flag, setting.flag)
        elif variable is not None:
            values[setting.name] = _parsed(setting, variable, setting.variable)
        elif setting.name in table:
            values[setting.name] = _parsed(setting, table[setting.name], f"{file}: {setting.name}")
        else:
            values[setting.name] = setting.default
    crews = {} if file is None else {name: _own(file, name, own) for name, own in _tables(file, table)}
    return Settings(command, values, file, crews)


def token_of(settings: Settings) -> str | None:
    """The bearer token from wherever it is set.

    Raises UsageError if its file cannot be read or is empty.
    """
    if settings.token is not None:
        return str(settings.token)
    if settings.token_file is None:
        return None
    try:
        lines = settings.token_file.read_text("utf-8").split("\n")
    except OSError as e:
        raise UsageError(f"token_file: {e}") from e
    if not lines[0].strip():
        raise UsageError(f"token_file: the first line of {settings.token_file} is empty")
    return str(lines[0].strip())


def _parsed(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.parse(value)
    except (ValueError, TypeError) as e:
        # The value itself is not repeated: it may be a secret in the wrong place.
        raise UsageError(f"{source}: {e}") from e


def _tables(file: Path, table: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    crews = table.get(CREWS, {})
    if not isinstance(crews, dict) or not all(isinstance(own, dict) for own in crews.values()):
        raise UsageError(f"{file}: {CREWS} has a table for each crew, such as [{CREWS}.research]")
    return list(crews.items())


def _own(file: Path, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one crew."""
    known = {setting.name: setting for setting in SETTINGS if setting.per_crew}
    if unknown := sorted(set(own) - set(known)):
        raise UsageError(
            f"{file}: not a setting of a crew: {', '.join(unknown)}, in [{CREWS}.{name}]; there are {', '.join(known)}"
        )
    return {key: _parsed(known[key], value, f"{file}: {CREWS}.{name}.{key}") for key, value in own.items()}


def _file(named: str | None) -> Path | None:
    if named is not None:
        return Path(named).expanduser()
    found = Path(FILE_NAME)
    return found if found.is_file() else None


def _table(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise UsageError(f"{file} cannot be read: {e}") from e
    known = {setting.name for setting in SETTINGS} | {CREWS}
    if unknown := sorted(set(table) - known):
        raise UsageError(f"{file}: not a setting: {', '.join(unknown)}. See `crewcast serve --help`.")
    return table
