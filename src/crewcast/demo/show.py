"""`python -m crewcast.demo [PROJECT]`: starts a server and a subscriber, kicks off, watches, and checks."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from crewcast.cli.asking import Client, watch
from crewcast.cli.timeline import Timeline
from crewcast.demo.subscriber import Received, Subscriber

INPUTS = {"topic": "green tea", "audience": "cafe owners"}
START_WITHIN = 20.0  # seconds
DELIVER_WITHIN = 20.0


def main() -> int:
    """Exit status 0 only if every event came in order, signed, valid, and the run completed."""
    project = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/classic")
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crewcast-demo-")))
        subscriber = stack.enter_context(Subscriber().listening())
        print(
            f"Crewcast serves {project} with the offline LLM; a subscriber listens at {subscriber.origin}\n"
        )
        timeline = Timeline.of_terminal()
        server = stack.enter_context(_Server(project, data))
        client = Client(server.url, server.token)
        subscriber.secret = _secret(data, subscriber.origin)
        urls = {f"{kind}WebhookUrl": f"{subscriber.origin}/{kind}" for kind in ("task", "step", "crew")}
        body = {"inputs": INPUTS, "meta": {"requestId": "demo-1"}, **urls}
        kickoff_id = json.loads(client.ask("POST", "/kickoff", body))["kickoff_id"]
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


class _Server:
    """`crewcast dev` as a process of its own, as a person would start it; its output is read for URL and token."""

    def __init__(self, project: Path, data: Path) -> None:
        self.url = self.token = ""
        self._output: list[str] = []
        command = [sys.executable, "-m", "crewcast", "dev", str(project), "--port", "0", "--stub-llm"]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
        self._process = subprocess.Popen(
            [*command, "--data-dir", str(data)],
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
        if not self._announced.wait(START_WITHIN) or not self.token:
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
            if found := re.search(r"is served at (\S+)", line):
                self.url = found[1]
            if found := re.search(r"^ *token: (\S+)", line):
                self.token = found[1]
                self._announced.set()
        self._announced.set()


def _secret(data: Path, origin: str) -> str:
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
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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
