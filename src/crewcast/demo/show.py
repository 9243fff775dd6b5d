"""`python -m crewcast.demo [PROJECT]`: starts a server and a subscriber, kicks off, watches, and checks.

With CREWCAST_DATABASE_URL the server is three nodes over that database, one for each role.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from crewcast.cli.asking import Client, watch
from crewcast.cli.timeline import Timeline
from crewcast.core.node import Role
from crewcast.crew.project import discover
from crewcast.demo.subscriber import Received, Subscriber

INPUTS = {"topic": "green tea", "audience": "cafe owners"}
START_WITHIN = 20.0  # seconds
LOAD_WITHIN = 60.0
DELIVER_WITHIN = 20.0
DATABASE = "CREWCAST_DATABASE_URL"
KEYS = ("CREWCAST_KEY", "CREWCAST_KEY_FILE")
KEY_FILE = Path(
    ".crewcast", "demo.key"
)  # a database stays with its key, and the demonstration with its database


def main() -> int:
    """Exit status 0 only if every event came in order, signed, valid, and the run completed."""
    project = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/classic")
    many = DATABASE in os.environ
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crewcast-demo-")))
        subscriber = stack.enter_context(Subscriber().listening())
        how = "Three nodes over one database serve" if many else "Crewcast serves"
        print(f"{how} {project} with the offline LLM; a subscriber listens at {subscriber.origin}\n")
        timeline = Timeline.of_terminal()
        environ = _environ(many=many)
        kickoff = "/kickoff"
        if many:
            client, kickoff = _nodes(stack, project, data, environ)
        else:
            server = stack.enter_context(_Server(project, data, environ))
            client = Client(server.url, server.token)
        subscriber.secret = _secret(data, subscriber.origin, environ)
        urls = {f"{kind}WebhookUrl": f"{subscriber.origin}/{kind}" for kind in ("task", "step", "crew")}
        body = {"inputs": INPUTS, "meta": {"requestId": "demo-1"}, **urls}
        kickoff_id = json.loads(client.ask("POST", kickoff, body))["kickoff_id"]
        timeline.note(f"kickoff {kickoff_id}")
        watch(client, kickoff_id, timeline)
        subscriber.crew_event.wait(DELIVER_WITHIN)
        log = json.loads(client.ask("GET", f"/api/v1/runs/{kickoff_id}/events?limit=1000"))["events"]
        status = json.loads(client.ask("GET", f"/status/{kickoff_id}"))
        expected = {
            f"/{kind}": sum(event["channel"] == kind for event in log) for kind in ("task", "step", "crew")
        }
        _wait_for(subscriber, expected)
        good = _report(subscriber.received, expected, status)
    print("\nAll of it holds." if good else "\nNOT all of it holds.")
    return 0 if good else 1


def _environ(*, many: bool) -> dict[str, str]:
    """None of Crewcast's variables, but those that nodes share."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    if many:
        shared = {name: os.environ[name] for name in (DATABASE, *KEYS) if name in os.environ}
        if not any(name in shared for name in KEYS):
            shared["CREWCAST_KEY_FILE"] = str(KEY_FILE.absolute())
        environ |= shared | {"CREWCAST_TOKEN": secrets.token_urlsafe(24)}
    return environ


def _nodes(stack: ExitStack, project: Path, data: Path, environ: Mapping[str, str]) -> tuple[Client, str]:
    """A node for each role, listed once they are up. A client of the API, and the path of the crew's kickoff."""
    url = ""
    for role in Role:
        node = stack.enter_context(_Server(project, data / role, environ, role))
        url = node.url or url
    client, crew = Client(url, environ["CREWCAST_TOKEN"]), discover(str(project)).name
    until = time.monotonic() + LOAD_WITHIN
    while not any(one["name"] == crew and one["state"] == "ready" for one in _crews(client)):
        if time.monotonic() > until:
            sys.exit(f"no worker has told of {crew} for {LOAD_WITHIN:g} s")
        time.sleep(0.1)
    print("  $ crewcast nodes", flush=True)
    listed = subprocess.run(
        [sys.executable, "-m", "crewcast", "nodes"],
        check=True,
        capture_output=True,
        text=True,
        env={**environ, "CREWCAST_URL": url},
    ).stdout
    print("".join(f"  {line}\n" for line in listed.splitlines()))
    return client, f"/crews/{crew}/kickoff"


def _crews(client: Client) -> list[dict[str, str]]:
    crews: list[dict[str, str]] = json.loads(client.ask("GET", "/crews"))["crews"]
    return crews


class _Server:
    """`crewcast dev` as a process of its own, as a person would start it; its output is read for URL and token.

    With a `role` it is one of several nodes, that of this role.
    """

    def __init__(
        self, project: Path, data: Path, environ: Mapping[str, str], role: Role | None = None
    ) -> None:
        self.url = self.token = ""
        self._output: list[str] = []
        self._up = False
        runs_crews = role in (None, Role.WORKER)
        command = [sys.executable, "-m", "crewcast", "dev", *([str(project)] if runs_crews else [])]
        command += ["--port", "0", "--data-dir", str(data), *(["--stub-llm"] if runs_crews else [])]
        if role is not None:
            command += ["--roles", role, "--node-name", f"demo-{role}"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environ,
        )
        self._announced = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        if not self._announced.wait(START_WITHIN) or not self._up:
            self.__exit__()
            sys.exit("the server did not start:\n" + "".join(self._output))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)
            if found := re.search(r"(?:is served|serves .+) at (\S+)", line):
                self.url = found[1]
            if found := re.search(r"^ *token: (\S+)", line):
                self.token = found[1]
            if self.token or re.search(r"crewcast (?:is up|serves)", line):
                self._up = True
                self._announced.set()
        self._announced.set()


def _secret(data: Path, origin: str, environ: Mapping[str, str]) -> str:
    """What `crewcast secret show --origin ...` prints."""
    command = [
        sys.executable,
        "-m",
        "crewcast",
        "secret",
        "show",
        "--data-dir",
        str(data),
        "--origin",
        origin,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environ).stdout.strip()


def _wait_for(subscriber: Subscriber, expected: dict[str, int]) -> None:
    until = time.monotonic() + DELIVER_WITHIN
    while time.monotonic() < until:
        if all(len(subscriber.received[path].first_deliveries) >= n for path, n in expected.items()):
            return
        time.sleep(0.02)


def _report(received: dict[str, Received], expected: dict[str, int], status: dict[str, object]) -> bool:
    rows: list[tuple[str, ...]] = [("channel", "sent", "received", "repeated", "in order", "signed", "valid")]
    good = status.get("state") == "SUCCESS"
    for path, one in received.items():
        first = one.first_deliveries
        complete = len(first) == expected[path] > 0
        signed, valid = not one.bad_signatures, not one.bad_schemas
        good &= complete and one.in_order and signed and valid
        rows.append(
            (
                path[1:],
                str(expected[path]),
                str(len(first)),
                str(len(one.deliveries) - len(first)),
                *("yes" if fact else "NO" for fact in (one.in_order, signed, valid)),
            )
        )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    print()
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for one in received.values():
        for problem in [*one.bad_signatures, *one.bad_schemas]:
            print(f"  ! {problem}")
    result = status.get("result")
    output = result.get("output", "") if isinstance(result, dict) else status.get("error", "")
    print(
        f"\n  result: {status.get('state')} in {status.get('execution_time')} s: {' '.join(str(output).split())[:160]}"
    )
    return good
