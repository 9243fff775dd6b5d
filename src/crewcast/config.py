"""Settings in force: from a command's flags, the environment's variables, the settings file, and the defaults."""

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crewcast import setting_values as parse
from crewcast.core.errors import UsageError
from crewcast.core.node import Role
from crewcast.settings import SETTINGS, Setting, of_command, shown_default

__all__ = ["SETTINGS", "Setting", "Settings", "add_flags", "load", "of_command", "shown_default", "token_of"]

FILE_NAME = "crewcast.toml"
CREWS = "crews"  # the file's table of what is different for some crews


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
    _check_roles(values)
    return Settings(command, values, file, crews)


def _check_roles(values: Mapping[str, Any]) -> None:
    """A part of a server finds the others in the database that they share."""
    if values.get("roles", tuple(Role)) != tuple(Role) and values.get("database_url") is None:
        raise UsageError(
            f"roles: {','.join(values['roles'])} alone is of use where other nodes have the rest, over one "
            "database: name it with database_url (CREWCAST_DATABASE_URL), or leave roles out"
        )


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
