"""Nodes and the crews that they serve, as rows; what writes them."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from crewcast.core.node import Node, Role
from crewcast.store.session import Session, Values


class Beat(NamedTuple):
    node: Node
    crews: Mapping[str, bytes]
    forget_before: int


async def beat(db: Session, value: Beat) -> None:
    node, crews, before = value
    await db.write("forget_nodes", {"before": before})
    await db.write("forget_crews", {"before": before})
    await db.write("beat", node_columns(node))
    for name, described in sorted(crews.items()):
        await db.write("publish_crew", {"name": name, "described": described, "at": node.seen_at})


async def leave(db: Session, node_id: str) -> None:
    await db.write("leave", {"id": node_id})


def node_from(row: Values) -> Node:
    node_id, name, roles, version, started_at, seen_at, until, crews, draining, url = row
    named = tuple(Role(role) for role in json.loads(roles))
    served = tuple(json.loads(crews))
    return Node(node_id, name, named, version, started_at, seen_at, until, served, bool(draining), url)


def node_columns(node: Node) -> dict[str, Any]:
    return {
        "id": node.id,
        "name": node.name,
        "roles": json.dumps([str(role) for role in node.roles]),
        "version": node.version,
        "started_at": node.started_at,
        "seen_at": node.seen_at,
        "until": node.until,
        "crews": json.dumps(list(node.crews)),
        "draining": int(node.draining),
        "url": node.url,
    }
