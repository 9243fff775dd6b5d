"""The `crewcast` command. Its parts are imported when used: the base install has no server in it."""

from crewcast.cli.main import main

__all__ = ["main"]
