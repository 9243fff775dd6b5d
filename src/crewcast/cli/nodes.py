"""`crewcast nodes`: the nodes that share a server's database."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from crewcast.cli.asking import Client, client_of
from crewcast.cli.form import table


def run(args: argparse.Namespace) -> int:
    _list(client_of(args))
    return 0


def _list(client: Client) -> None:
    rows: list[Sequence[Any]] = [("NAME", "STATE", "ROLES", "SINCE", "LAST SEEN", "CREWS")]
    rows += [
        (
            one["name"],
            one["state"],
            ",".join(one["roles"]),
            one["started_at"],
            one["seen_at"],
            ",".join(one["crews"]) or "-",
        )
        for one in json.loads(client.ask("GET", "/api/v1/nodes"))["nodes"]
    ]
    table(rows)
