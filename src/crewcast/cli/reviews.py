"""`crewcast reviews`, `approve`, `reject` and `stop`: what waits for a person, and what the person says."""

import argparse
import getpass
import json
import sys
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from crewcast.cli.asking import JSON, Client, client_of
from crewcast.cli.form import one_line, table
from crewcast.core.errors import UsageError

PAGE = 1000
DECIDED = {"approve": "approved", "reject": "rejected"}


def run(args: argparse.Namespace, login: Callable[[], str] = getpass.getuser) -> int:
    client = client_of(args)
    match args.ask:
        case "reviews":
            _list(client, args)
        case "stop":
            answer = _json(client, "POST", f"/stop/{_quoted(args.kickoff_id)}", None, _who(args, login))
            print(f"{answer['kickoff_id']}: {answer['message']}")
        case _:
            _decide(client, args, _who(args, login))
    return 0


def actor(name: str) -> str:
    """A person's name as a header has it: its characters in UTF-8, on one line."""
    return one_line(name).encode().decode("latin-1")


# --- what waits -------------------------------------------------------------------------------


def _list(client: Client, args: argparse.Namespace) -> None:
    found = _reviews(client, "all" if args.all else "pending")
    if args.json:
        print(json.dumps(found, indent=2))
        return
    if not found:
        print("there was no review yet" if args.all else "nothing waits for a decision")
        return
    if args.all:
        rows: list[Sequence[Any]] = [("ASKED AT", "KICKOFF ID", "REVIEW", "TASK", "STATE", "HOW", "BY")]
        rows += [
            (
                one["asked_at"],
                one["kickoff_id"],
                one["review"],
                one_line(one["task_id"]),
                DECIDED.get(one.get("decision", ""), one["state"]),
                one.get("decided_how", "-"),
                one_line(one.get("decided_by", "-")),
            )
            for one in found
        ]
    else:
        rows = [("ASKED AT", "KICKOFF ID", "TASK", "UNTIL", "LINK")]
        rows += [
            (
                one["asked_at"],
                one["kickoff_id"],
                one_line(one["task_id"]),
                one.get("expires_at", "-"),
                one.get("review_url", "- (the server has no public_url)"),
            )
            for one in found
        ]
    table(rows)


def _reviews(client: Client, state: str, kickoff_id: str | None = None) -> list[JSON]:
    """All of them, in the order of their questions."""
    query = {"state": state, "limit": str(PAGE)}
    if kickoff_id is not None:
        query["kickoff_id"] = kickoff_id
    found: list[JSON] = []
    after: int | None = 0
    while after is not None:
        page = _json(client, "GET", f"/api/v1/reviews?{urllib.parse.urlencode(query | {'after': after})}")
        found += page["reviews"]
        after = page["next"]
    return found


# --- decisions --------------------------------------------------------------------------------


def _decide(client: Client, args: argparse.Namespace, who: dict[str, str]) -> None:
    body: JSON = {"is_approve": args.ask == "approve", "human_feedback": args.feedback or ""}
    answer = _json(client, "POST", "/resume", _meant(client, args.kickoff_id, args.task) | body, who)
    for warning in answer.get("warnings", []):
        print(f"crewcast: {warning}", file=sys.stderr)
    print(f"{answer['kickoff_id']}: {one_line(answer['message'])}")


def _meant(client: Client, kickoff_id: str | None, task: str | None) -> JSON:
    """Which review is decided: of a run the task that is named, or its newest; without a run the only one that waits.

    Raises UsageError where that is none, or not one.
    """
    if kickoff_id is not None and task is not None:
        return {
            "kickoff_id": kickoff_id,
            "task_id": task,
        }  # the server knows a task by its number and its UUID, too
    if kickoff_id is not None:
        # The newest also if it is decided: the same decision again is no error, and another one is told so.
        found = _reviews(client, "all", kickoff_id)[-1:]
        if not found:
            state = _json(client, "GET", f"/status/{_quoted(kickoff_id)}")["state"]
            raise UsageError(f"{kickoff_id} waits for nobody (its state is {state})")
    else:
        found = [one for one in _reviews(client, "pending") if task in (None, one["task_id"])]
        of_task = "" if task is None else f" about a task {task!r}"
        if not found:
            raise UsageError(f"nothing waits for a decision{of_task}")
        if len(found) > 1:
            listed = "".join(f"\n  {one['kickoff_id']}  {one_line(one['task_id'])}" for one in found)
            raise UsageError(
                f"{len(found)} runs wait for a decision{of_task}; name the one that you mean:{listed}"
            )
    [one] = found
    return {"kickoff_id": one["kickoff_id"], "task_id": one["task_id"], "review": one["review"]}


def _who(args: argparse.Namespace, login: Callable[[], str]) -> dict[str, str]:
    try:
        name = args.actor or login()
    except (OSError, KeyError, ImportError):  # a user id without a name, as containers have it
        name = ""
    return {"crewcast_client": "cli"} | ({"crewcast_actor": actor(name)} if one_line(name) else {})


def _json(
    client: Client, method: str, path: str, body: JSON | None = None, headers: dict[str, str] | None = None
) -> Any:
    return json.loads(client.ask(method, path, body, **(headers or {})))


def _quoted(kickoff_id: str) -> str:
    return urllib.parse.quote(kickoff_id, safe="")
