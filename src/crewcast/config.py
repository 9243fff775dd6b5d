"""Every setting, listed once: flags, `CREWCAST_*` variables, `crewcast.toml` and the docs come from here."""

import argparse
import base64
import ipaddress
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crewcast.core.errors import UsageError
from crewcast.dispatch import proxy
from crewcast.dispatch.egress import host_pattern

VARIABLE_PREFIX = "CREWCAST_"
FILE_NAME = "crewcast.toml"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = int(str(value))
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def _seconds(value: Any) -> float:
    number = float(str(value))
    if not 0 <= number <= 365 * 86400:
        raise ValueError("must be a number of seconds, at least 0")
    return number


def _limit(value: Any) -> float:
    number = _seconds(value)
    if number == 0:
        raise ValueError("must be more than 0 seconds")
    return number


def _rate(value: Any) -> float:
    number = float(str(value))
    if number != 0 and not 0.001 <= number <= 100_000:
        raise ValueError("must be a number a second between 0.001 and 100000, or 0")
    return number


def _schedule(value: Any) -> tuple[float, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    waits = tuple(_seconds(part) for part in parts)
    if not waits:
        raise ValueError("needs at least one wait in seconds")
    return waits


def _networks(value: Any) -> tuple[Network, ...]:
    parts = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
    return tuple(ipaddress.ip_network(str(part).strip()) for part in parts)


def _hosts(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else [part for part in str(value).split(",") if part.strip()]
    return tuple(host_pattern(str(part).strip()) for part in parts)


def _proxy(value: Any) -> proxy.Proxy:
    return proxy.parse(_text(value))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def _path(value: Any) -> Path:
    return Path(_text(value)).expanduser()


def _key(value: Any) -> bytes:
    try:
        key = base64.b64decode(_text(value), validate=True)
    except ValueError as e:
        raise ValueError("must be 32 bytes in base64, as `openssl rand -base64 32` prints them") from e
    if len(key) != 32:
        raise ValueError(f"must be 32 bytes in base64, and is {len(key)}")
    return key


def _signatures(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    named = {str(part).strip() for part in parts}
    if named not in ({"v1"}, {"v1", "v1a"}):
        raise ValueError("must be v1, or v1,v1a")
    return tuple(sorted(named))


def _flag(value: Any) -> bool:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    try:
        return words[str(value).lower()]
    except KeyError:
        raise ValueError("must be true or false") from None


def _level(value: Any) -> str:
    level = str(value).lower()
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError("must be debug, info, warning or error")
    return level


@dataclass(frozen=True, slots=True)
class Setting:
    """`parse` turns a text (or a TOML value) into the value, raising ValueError with a reason."""

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    commands: tuple[str, ...] = ("dev", "serve")
    metavar: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()


SETTINGS: tuple[Setting, ...] = (
    Setting("host", _text, "127.0.0.1", "address to listen on", metavar="ADDRESS"),
    Setting("port", _whole(0, 65535), 8000, "port to listen on; 0 takes a free one", metavar="PORT"),
    Setting(
        "token",
        _text,
        None,
        "bearer token that callers need; `dev` makes one up. Flags show in process lists: better a variable or token_file",
        metavar="TOKEN",
    ),
    Setting("token_file", _path, None, "file whose first line is the bearer token", metavar="FILE"),
    Setting(
        "data_dir",
        _path,
        Path(".crewcast"),
        "folder for the database, logs and keys; one server at a time",
        commands=("dev", "serve", "secret"),
        metavar="DIR",
    ),
    Setting(
        "key",
        _key,
        None,
        "the master key itself, 32 bytes in base64. A flag shows in process lists: better a variable or key_file",
        commands=("dev", "serve", "secret"),
        metavar="KEY",
    ),
    Setting(
        "key_file",
        _path,
        None,
        "file with the master key that signing secrets derive from; made if absent. Default: secret.key in data_dir",
        commands=("dev", "serve", "secret"),
        metavar="FILE",
    ),
    Setting(
        "default_crew",
        _text,
        None,
        "with several crews: the one that /inputs and /kickoff mean. Default: none, /crews/NAME/... is asked",
        metavar="NAME",
    ),
    Setting(
        "python",
        _text,
        None,
        "interpreter that runs the crews of all projects. Default: each project's .venv, else Crewcast's own",
        metavar="PYTHON",
    ),
    Setting(
        "stub_llm",
        _flag,
        False,
        "answer every LLM call from the built-in offline LLM; no key is needed",
        commands=("dev",),
    ),
    Setting(
        "stub_delay",
        _seconds,
        0.05,
        "seconds that the offline LLM takes for a call",
        commands=("dev",),
        metavar="SECONDS",
    ),
    Setting("drain", _seconds, 30.0, "seconds that running crews may go on after SIGTERM", metavar="SECONDS"),
    Setting("max_runs", _whole(1, 10_000), 16, "crews running at once", metavar="N"),
    Setting(
        "max_event_bytes",
        _whole(4096, 1 << 30),
        256 * 1024,
        "longer webhook bodies are cut, with a marker",
        metavar="BYTES",
    ),
    Setting(
        "max_body_bytes",
        _whole(1024, 1 << 30),
        4 * 1024 * 1024,
        "longer request bodies are refused",
        metavar="BYTES",
    ),
    Setting(
        "delivery_timeout",
        _seconds,
        30.0,
        "seconds that one delivery may take, its answer included",
        metavar="SECONDS",
    ),
    Setting(
        "connect_timeout",
        _limit,
        10.0,
        "seconds that each step to a connection may take: the name's lookup, the connect, the TLS handshake",
        metavar="SECONDS",
    ),
    Setting(
        "response_timeout",
        _limit,
        None,
        "seconds that a subscriber may take to begin its answer. Default: what delivery_timeout leaves",
        metavar="SECONDS",
    ),
    Setting(
        "retry_schedule",
        _schedule,
        (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0),
        "seconds between the attempts for an event, the last repeated",
        metavar="S,S,...",
    ),
    Setting(
        "give_up_after",
        _seconds,
        259_200.0,
        "seconds after which an event that nobody takes is a dead letter",
        metavar="SECONDS",
    ),
    Setting(
        "crew_wait",
        _seconds,
        60.0,
        "seconds that a crew event waits for the run's other events at its origin",
        metavar="SECONDS",
    ),
    Setting(
        "signatures",
        _signatures,
        ("v1",),
        "how deliveries are signed: v1 (HMAC), or v1,v1a (ed25519 too, which takes about half of the peak rate)",
        commands=("dev", "serve", "secret"),
        metavar="v1|v1,v1a",
    ),
    Setting(
        "origin_concurrency",
        _whole(1, 1024),
        64,
        "deliveries under way at once to one origin (scheme, host and port)",
        metavar="N",
    ),
    Setting(
        "origin_rate",
        _rate,
        0.0,
        "deliveries that one origin is sent in a second; 0 sets no limit",
        metavar="N",
    ),
    Setting(
        "retention",
        _seconds,
        2_592_000.0,
        "seconds after its end at which a run goes, with its events, deliveries and log; 0 keeps all",
        metavar="SECONDS",
    ),
    Setting(
        "allow_networks",
        _networks,
        (),
        "private networks that webhooks may go to, as CIDR",
        metavar="CIDR,...",
    ),
    Setting(
        "allow_hosts",
        _hosts,
        (),
        "host names whose addresses are not checked, each exact or as *.NAME",
        metavar="NAME,...",
    ),
    Setting(
        "deny_networks",
        _networks,
        (),
        "networks that webhooks never go to, whatever else allows them, as CIDR",
        metavar="CIDR,...",
    ),
    Setting(
        "proxy",
        _proxy,
        None,
        "HTTP proxy for webhooks to public addresses, http://[USER:PASSWORD@]HOST:PORT. "
        "Flags show in process lists: better a variable if it has a password",
        metavar="URL",
    ),
    Setting("log_level", _level, "info", "debug, info, warning or error", metavar="LEVEL"),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force for one command, and the file that some came from."""

    command: str
    values: Mapping[str, Any] = field(repr=False)
    file: Path | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    def seconds(self, name: str) -> int:
        """A duration setting in microseconds."""
        return int(self.values[name] * 1_000_000)


def of_command(command: str) -> list[Setting]:
    return [setting for setting in SETTINGS if command in setting.commands]


def add_flags(parser: argparse.ArgumentParser, command: str) -> None:
    """Each setting of a command as a flag, absent by default so that other sources can speak."""
    for setting in of_command(command):
        text = setting.help.replace("%", "%%")
        if setting.parse is _flag:
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
    return Settings(command, values, file)


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
    known = {setting.name for setting in SETTINGS}
    if unknown := sorted(set(table) - known):
        raise UsageError(f"{file}: not a setting: {', '.join(unknown)}. See `crewcast serve --help`.")
    return table
