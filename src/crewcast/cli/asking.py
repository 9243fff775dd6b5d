"""`crewcast kickoff`, `status`, `logs` and `watch`: a client of the HTTP API on the standard library."""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from crewcast.cli.timeline import Timeline
from crewcast.core.errors import CrewcastError, UsageError

JSON = dict[str, Any]

TIMEOUT = 30.0
RECONNECT_FOR = 60.0  # seconds that a watch outlives a server that restarts


class Unanswered(CrewcastError):
    """The server could not be asked, or said no; the text is for the person."""


class Client:
    """One server and its token."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    def ask(self, method: str, path: str, body: JSON | None = None, **headers: str) -> bytes:
        """The body of a 2xx answer.

        Raises Unanswered with the server's own words for anything else.
        """
        with self._open(method, path, body, headers) as response:
            answer: bytes = response.read()
            return answer

    def stream(self, kickoff_id: str, after: int) -> Iterator[tuple[str, JSON]]:
        """The run's server-sent events after number `after`: (`run` or `event`, its body)."""
        path = f"/api/v1/runs/{kickoff_id}/events?after={after}"
        with self._open("GET", path, None, {"accept": "text/event-stream"}) as response:
            name = ""
            for raw in response:
                line = raw.decode("utf-8").rstrip("\n")
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def _open(self, method: str, path: str, body: JSON | None, headers: dict[str, str]) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)  # noqa: S310 - the person's own URL
        request.add_header("authorization", f"Bearer {self._token}")
        if data is not None:
            request.add_header("content-type", "application/json")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
        except urllib.error.HTTPError as e:
            raise Unanswered(_refusal(e)) from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            reason = getattr(e, "reason", e)
            raise Unanswered(
                f"{self._url} does not answer ({reason}). Is it running? Set CREWCAST_URL."
            ) from e


def client_of(args: argparse.Namespace) -> Client:
    return Client(
        args.url or os.environ.get("CREWCAST_URL", "http://127.0.0.1:8000"),
        args.token or os.environ.get("CREWCAST_TOKEN", ""),
    )


def run(args: argparse.Namespace) -> int:
    client = client_of(args)
    match args.ask:
        case "kickoff":
            return _kickoff(client, args)
        case "crews":
            return _crews(client)
        case "status":
            print(json.dumps(json.loads(client.ask("GET", f"/status/{args.kickoff_id}")), indent=2))
            return 0
        case "logs":
            sys.stdout.buffer.write(client.ask("GET", f"/api/v1/runs/{args.kickoff_id}/logs"))
            sys.stdout.flush()
            return 0
        case _:
            return watch(client, args.kickoff_id, Timeline.of_terminal())


def watch(client: Client, kickoff_id: str, timeline: Timeline) -> int:
    """Prints a run until it ends: 0 completed, 1 failed. A server that restarts is waited for."""
    after, state, lost_at = 0, "", None
    while state not in ("SUCCESS", "FAILED", "REVOKED"):
        try:
            for name, body in client.stream(kickoff_id, after):
                lost_at = None
                if name == "event":
                    after = body["seq"]
                    timeline.event(body)
                elif name == "run":
                    state = body["state"]
                    timeline.state(body)
        except (Unanswered, OSError, http.client.HTTPException) as e:
            now = time.monotonic()
            lost_at = lost_at or now
            if isinstance(e, Unanswered) and isinstance(e.__cause__, urllib.error.HTTPError):
                raise
            if now - lost_at > RECONNECT_FOR:
                raise Unanswered(f"the server went away: {e}") from e
            timeline.note("connection lost; trying again")
            time.sleep(1)
    return 0 if state == "SUCCESS" else 1


def _kickoff(client: Client, args: argparse.Namespace) -> int:
    body: JSON = {"inputs": _inputs(args.inputs)}
    for name, value in (
        ("taskWebhookUrl", args.task_url),
        ("stepWebhookUrl", args.step_url),
        ("crewWebhookUrl", args.crew_url),
        ("humanInputWebhookUrl", args.human_url),
        ("meta", _json("--meta", args.meta) if args.meta else None),
    ):
        if value is not None:
            body[name] = value
    headers = {"idempotency_key": args.key} if args.key else {}
    path = f"/crews/{urllib.parse.quote(args.crew, safe='')}/kickoff" if args.crew else "/kickoff"
    answer = json.loads(client.ask("POST", path, body, **headers))
    for warning in answer.get("warnings", []):
        print(f"crewcast: {warning}", file=sys.stderr)
    print(answer["kickoff_id"], flush=True)
    return watch(client, answer["kickoff_id"], Timeline.of_terminal()) if args.watch else 0


def _crews(client: Client) -> int:
    """One line for each crew: 0 if all are ready or loading, 1 if one cannot be loaded."""
    told = json.loads(client.ask("GET", "/crews"))
    if not told["crews"]:
        print("crewcast: no crew is there yet: no worker has told of one", file=sys.stderr)
        return 0
    width = max(len(crew["name"]) for crew in told["crews"])
    for crew in told["crews"]:
        names = [name if name in crew["required"] else f"[{name}]" for name in crew.get("inputs", [])]
        about = crew.get("error") or ("inputs: " + (", ".join(names) or "none") if "inputs" in crew else "")
        mark = "*" if crew["name"] == told["default"] and len(told["crews"]) > 1 else " "
        print(f"{mark} {crew['name']:<{width}}  {crew['state']:<12}  {crew['kind']:<16}  {about}".rstrip())
    return int(any(crew["state"] == "not loadable" for crew in told["crews"]))


def _inputs(pairs: list[str]) -> JSON:
    inputs: JSON = {}
    for pair in pairs:
        name, mark, value = pair.partition("=")
        if not mark or not name.rstrip(":"):
            raise UsageError(f"{pair!r} is not an input; write key=value, or key:=JSON")
        if name.endswith(":"):
            inputs[name[:-1]] = _json(name[:-1], value)
        else:
            inputs[name] = value
    return inputs


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as e:
        raise UsageError(f"{name} is not JSON: {e}") from e


def _refusal(error: urllib.error.HTTPError) -> str:
    text = error.read(65536).decode("utf-8", "replace")
    try:
        body = json.loads(text)
        message = body.get("message") or body.get("detail") or text
    except (ValueError, AttributeError):
        message = text.strip() or error.reason
    hint = " Set CREWCAST_TOKEN." if error.code == 401 else ""
    return f"{message} (HTTP {error.code}).{hint}"
