"""A real server process, as a person starts it, and a client for its API."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.receiver import check_body

REPOSITORY = Path(__file__).parents[2]
CLASSIC = REPOSITORY / "examples" / "classic"
TOKEN = "test-token-5f2b"
ENDED = ("SUCCESS", "FAILED", "REVOKED")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServerProcess:
    """`crewcast dev PROJECT ... --port 0 ...` until it is stopped or killed; its output is kept."""

    def __init__(
        self,
        project: Path | str | Sequence[Path | str],
        data: Path,
        *flags: str,
        command: str = "dev",
        **environ: str,
    ) -> None:
        projects = [project] if isinstance(project, str | Path) else project
        self.output: list[str] = []
        self.data = data
        self.url = ""
        self._listening = threading.Event()
        variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "crewcast",
                command,
                *map(str, projects),
                "--port",
                "0",
                "--data-dir",
                str(data),
                *flags,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**variables, "CREWCAST_TOKEN": TOKEN, **environ},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self.wait_until_listening()
        except BaseException:
            self.__exit__()  # a server that does not start must not outlive its test either
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        self._close()

    def wait_until_listening(self) -> None:
        assert self._listening.wait(60), "no URL was announced"
        assert self.url, "the server ended:\n" + "".join(self.output)

    def wait_until_ready(self) -> None:
        """Until CrewAI and the crew are loaded."""
        assert self.ask("GET", "/inputs", timeout=60).status == 200, "".join(self.output)

    def terminate(self, within: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        self.process.kill()
        self.wait()

    def wait(self, within: float = 60) -> int:
        status = self.process.wait(within)
        self._close()
        return status

    @property
    def text(self) -> str:
        return "".join(self.output)

    def wait_until_said(self, text: str, within: float = 60) -> None:
        """Until the output has the text. An answer can be here before a line that was written before it."""
        until = time.monotonic() + within
        while text not in self.text:
            assert time.monotonic() < until, f"the server did not say {text!r}:\n{self.text}"
            time.sleep(0.02)

    def ask(
        self, method: str, path: str, body: Any = None, *, timeout: float = 60, **headers: str | None
    ) -> Answer:
        """One request. Bytes go as they are, anything else as JSON; a header None is left out."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        listed = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"} | headers
        for name, value in listed.items():
            if value is not None:
                request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return Answer(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as e:
            with e:
                return Answer(e.code, dict(e.headers), e.read())

    def kickoff(self, inputs: Any, *, at: str = "", **fields: Any) -> str:
        """Starts a run; of several crews, `at` is the path of one: `/crews/NAME`."""
        answer = self.ask("POST", f"{at}/kickoff", {"inputs": inputs, **fields})
        assert answer.status == 200, answer.body
        kickoff_id: str = answer.json["kickoff_id"]
        return kickoff_id

    def status(self, kickoff_id: str, *, at: str = "") -> Any:
        return self.ask("GET", f"{at}/status/{kickoff_id}").json

    def wait_for(self, kickoff_id: str, within: float = 60, *, at: str = "", state: str | None = None) -> Any:
        """The status of a run once it has ended, or is in that state."""
        until, wanted = time.monotonic() + within, ENDED if state is None else (state,)
        while (status := self.status(kickoff_id, at=at))["state"] not in wanted:
            assert time.monotonic() < until, f"still {status}\n{self.text}"
            time.sleep(0.05)
        return status

    def wait_until_delivered(self, kickoff_id: str, within: float = 60) -> None:
        """Until every attempt is recorded and nothing waits: that is a moment after the subscriber has it."""
        until = time.monotonic() + within
        while any(
            lane["pending"] for lane in self.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json["lanes"]
        ):
            assert time.monotonic() < until, self.text
            time.sleep(0.05)

    def events(self, kickoff_id: str) -> list[Any]:
        """The run's log; every payload in it is as the document says."""
        found: list[Any] = self.ask("GET", f"/api/v1/runs/{kickoff_id}/events?limit=1000").json["events"]
        assert [
            problem for event in found for problem in check_body(event["channel"], event["payload"])
        ] == []
        return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(r"(?:(?:is|are) served|serves .+) at (http://\S+)|crewcast is up as", line):
                self.url = found[1] or ""  # a node without an API has none
                self._listening.set()
        self._listening.set()

    def _close(self) -> None:
        self._reader.join(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
