"""`crewcast deliveries`, `redeliver`, `origins` and `delete`: what came of webhooks, and what to do about it."""

import argparse
import json
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from crewcast.cli.asking import JSON, Client, client_of
from crewcast.cli.form import table
from crewcast.core import duration, moment
from crewcast.core.errors import UsageError

PAGE = 1000


def run(args: argparse.Namespace) -> int:
    client = client_of(args)
    match args.ask:
        case "deliveries":
            _deliveries(client, args)
        case "redeliver":
            _redeliver(client, args)
        case "origins":
            _origins(client, args.reset)
        case _:
            client.ask("DELETE", f"/api/v1/runs/{_quoted(args.kickoff_id)}")
            print(f"{args.kickoff_id} is deleted")
    return 0


def since(text: str, now: int) -> str:
    """The RFC 3339 moment that `--since` means: one, or a duration before `now`.

    Raises UsageError.
    """
    try:
        return moment.show(now - duration.parse(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment.parse(text)
    except ValueError as e:
        raise UsageError(f"--since {e}; or how long ago, such as 2h or 3d") from e
    return text


def _now() -> int:
    return time.time_ns() // 1000


# --- what came of webhooks --------------------------------------------------------------------


def _deliveries(client: Client, args: argparse.Namespace) -> None:
    if args.kickoff_id is None or args.undelivered or args.origin or args.since:
        _undelivered(client, args)
    else:
        _of_run(client, args.kickoff_id)


def _undelivered(client: Client, args: argparse.Namespace) -> None:
    """Every page of it, printed as it comes."""
    query = {"limit": str(PAGE)}
    if args.kickoff_id is not None:
        query["kickoff_id"] = args.kickoff_id
    if args.origin is not None:
        query["origin"] = args.origin
    if args.since is not None:
        query["since"] = since(args.since, _now())
    head: Sequence[str] = ("AT", "KICKOFF ID", "LANE", "SEQ", "LANE SEQ", "TYPE", "REASON", "URL")
    after: int | None = 0
    while after is not None:
        page = _json(client, "GET", f"/api/v1/undelivered?{urllib.parse.urlencode(query | {'after': after})}")
        rows = [
            (
                one["at"],
                one["kickoff_id"],
                one["lane"],
                one["seq"],
                one["lane_seq"],
                one["type"],
                one["reason"],
                one["url"],
            )
            for one in page["dead_letters"]
        ]
        table([head, *rows] if after == 0 else rows, widths=(27, 36, 4, 4, 8, 14, 16))
        after = page["next"]


def _of_run(client: Client, kickoff_id: str) -> None:
    first, *more = _pages(client, kickoff_id)
    lanes: list[Sequence[Any]] = [("LANE", "CHANNELS", "SETTLED", "STATE", "URL")]
    lanes += [
        (lane["lane"], ",".join(lane["channels"]), lane["settled"], _state(lane), lane["url"])
        for lane in first["lanes"]
    ]
    table(lanes)
    attempts: list[Sequence[Any]] = [("AT", "LANE", "SEQ", "ATTEMPT", "OUTCOME", "SECONDS", "VERDICT")]
    attempts += [
        (
            one["at"],
            one["lane"],
            one["seq"],
            one["attempt"],
            one["outcome"],
            f"{one['seconds']:.3f}",
            one["verdict"],
        )
        for page in (first, *more)
        for one in page["attempts"]
    ]
    print()
    table(attempts)
    dead: list[Sequence[Any]] = [("GIVEN UP", "LANE", "SEQ", "LANE SEQ", "TYPE", "REASON", "")]
    dead += [
        (
            one["at"],
            one["lane"],
            one["seq"],
            one["lane_seq"],
            one["type"],
            one["reason"],
            "redelivered" * one["redelivered"],
        )
        for one in first["dead_letters"]
    ]
    if len(dead) > 1:
        print()
        table(dead)


def _pages(client: Client, kickoff_id: str) -> Iterator[JSON]:
    after = 0
    while True:
        page = _json(client, "GET", f"/api/v1/runs/{_quoted(kickoff_id)}/deliveries?after={after}")
        if after and not page["attempts"]:
            return
        yield page
        if not page["attempts"]:
            return
        after = page["attempts"][-1]["id"]


def _state(lane: JSON) -> str:
    if lane["closed"]:
        state = f"closed: {lane['closed']}"
    elif lane["pending"]:
        state = f"waits until {lane['due_at']}" if lane["due_at"] else "at work"
    else:
        state = "done"
    if lane["replay_of"] is not None:
        return f"again {lane['replay_of']}, {state}"
    return state if lane["split_of"] is None else f"left {lane['split_of']}, {state}"


# --- sending again ----------------------------------------------------------------------------


def _redeliver(client: Client, args: argparse.Namespace) -> None:
    wanted = {"url": args.to} if args.to is not None else {}
    if args.kickoff_id is not None:
        if args.origin is not None or args.since is not None:
            raise UsageError("name a run, or --origin with --since")
        body = {
            "kickoff_id": args.kickoff_id,
            "lane": args.lane,
            "seq": args.seq,
            "dead_only": args.dead_only,
        }
        _tell_made(_json(client, "POST", "/api/v1/redeliveries", body | wanted)["lanes"])
        return
    if args.origin is None or args.since is None:
        raise UsageError("name a run by its ID, or an origin with --origin and --since")
    if args.lane is not None or args.seq is not None:
        raise UsageError("--lane and --seq are of one run: name it by its ID")
    _all_of_origin(client, wanted | {"origin": args.origin, "since": since(args.since, _now())})


def _all_of_origin(client: Client, body: JSON) -> None:
    """Page by page until there is none; how far it is goes to stderr."""
    made: list[JSON] = []
    after: str | None = None
    while True:
        page = _json(client, "POST", "/api/v1/redeliveries", body | {"dead_only": True, "after": after})
        made += page["lanes"]
        after = page["next"]
        if after is None:
            break
        print(f"crewcast: {_count(made)} so far", file=sys.stderr, flush=True)
    _tell_made(made)


def _tell_made(lanes: list[JSON]) -> None:
    if not lanes:
        print("nothing to send again")
        return
    rows: list[Sequence[Any]] = [("KICKOFF ID", "LANE", "AGAIN", "EVENTS")]
    rows += [(one["kickoff_id"], one["lane"], one["replay_of"], one["events"]) for one in lanes]
    table(rows)
    print(f"{_count(lanes)} to be sent again")


def _count(lanes: list[JSON]) -> str:
    events = sum(one["events"] for one in lanes)
    return f"{events} event{'s' * (events != 1)} of {len(lanes)} lane{'s' * (len(lanes) != 1)}"


# --- origins ----------------------------------------------------------------------------------


def _origins(client: Client, reset: str | None) -> None:
    if reset is not None:
        told = _json(client, "POST", "/api/v1/origins/reset", {"origin": reset})
        print(f"{told['origin']} is tried again now; lanes that waited: {told['lanes']}")
        return
    rows: list[Sequence[Any]] = [("ORIGIN", "STATE", "LANES", "EVENTS", "UNTIL", "REASON")]
    for one in _json(client, "GET", "/api/v1/origins")["origins"]:
        until = max(filter(None, (one["retry_at"], one["paused_until"])), default="-")
        state = "paused" if one["state"] == "closed" and one["paused_until"] else one["state"]
        rows.append((one["origin"], state, one["lanes"], one["events"], until, one["reason"] or "-"))
    table(rows)


# --- asking ----------------------------------------------------------------------------------


def _json(client: Client, method: str, path: str, body: JSON | None = None) -> JSON:
    answer: JSON = json.loads(client.ask(method, path, body))
    return answer


def _quoted(kickoff_id: str) -> str:
    return urllib.parse.quote(kickoff_id, safe="")
