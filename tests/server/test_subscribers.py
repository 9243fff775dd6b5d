"""The subscribers in examples/, each served by its own framework, and a real run delivered to it."""

import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable
from typing import Self

import pytest

from crewcast.core.signature import key_of, sign
from tests.support.ports import reserved_port
from tests.support.receiver import SCHEMAS
from tests.support.server import REPOSITORY

SUBSCRIBERS = REPOSITORY / "examples" / "subscribers"
README = (SUBSCRIBERS / "README.md").read_text("utf-8")
# As the README says it, with --noreload: Django's own second process would outlive its parent.
COMMANDS = dict(re.findall(r"^\| `(with_\w+)\.py` \| `(.*)` \|$", README, re.MULTILINE))
INPUTS = {"topic": "green tea", "audience": "cafe owners"}


def test_the_readme_has_a_command_for_each():
    assert {file.stem for file in SUBSCRIBERS.glob("*.py")} == set(COMMANDS) == {
        "with_fastapi",
        "with_flask",
        "with_django",
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_each_says_the_same_command_itself(name):
    assert f'\nWEBHOOK_KEYS="whsec_..." {COMMANDS[name]}\n' in (SUBSCRIBERS / f"{name}.py").read_text("utf-8")


@pytest.fixture
def port():
    with reserved_port() as port:
        yield port


class Subscriber:
    """One of the examples as a process; what it prints is kept."""

    def __init__(self, name: str, folder, keys: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        words = shlex.split(COMMANDS[name].replace("9000", str(port)))
        module = [] if words[0] == "python" else ["-m"]
        extra = ["--noreload"] if "runserver" in words else []
        left_out = ("CREWCAST_", "PYTHONUNBUFFERED")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, *module, *words[words[0] == "python" :], *extra],
            cwd=SUBSCRIBERS,
            # Unbuffered, the lines of its threads would tear each other; it flushes them itself.
            env=inherited | {"WEBHOOK_KEYS": keys, "WEBHOOK_DATA": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        until = time.monotonic() + 60
        while not self._listens():
            if time.monotonic() > until or self._process.poll() is not None:
                self.__exit__()
                raise AssertionError("\n".join(self.lines))
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.url.rsplit(":", 1)[1]))).close()
        except OSError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def told(self, kind: str) -> list[str]:
        return [line for line in self.lines if line.startswith(f"{kind}: ")]

    def wait(self, kinds: Iterable[str], count: int) -> None:
        """Until so many lines of these kinds were printed."""
        with self._changed:
            assert self._changed.wait_for(lambda: sum(len(self.told(kind)) for kind in kinds) >= count, 60), (
                "\n".join(self.lines)
            )

    def post(self, path: str, headers: dict[str, str], body: bytes, method: str = "POST") -> int:
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status: int = answer.status
                return status
        except urllib.error.HTTPError as e:
            with e:
                return e.code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()


def secret_for(server, origin: str) -> str:
    command = [sys.executable, "-m", "crewcast", "secret", "show", "--data-dir", str(server.data), "--origin"]
    return subprocess.run([*command, origin], check=True, capture_output=True, text=True).stdout.strip()


def signed(secret: str, body: bytes, event_id: str, lane_seq: int) -> dict[str, str]:
    now = int(time.time())
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(key_of(secret), event_id, now, body),
        "crewcast-lane-seq": str(lane_seq),
        "crewcast-run-attempt": "1",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_it_handles_every_event_of_a_run_once(server, tmp_path, port, name):
    secret = secret_for(server, f"http://127.0.0.1:{port}")
    with Subscriber(name, tmp_path, f"whsec_AAAA {secret}", port) as subscriber:
        kinds = [kind for kind in SCHEMAS if kind != "human_input"]  # this crew asks nobody
        urls = {f"{kind}WebhookUrl": f"{subscriber.url}/{kind}" for kind in kinds}
        kickoff_id = server.kickoff(INPUTS, **urls)
        server.wait_for(kickoff_id)
        log = server.events(kickoff_id)
        subscriber.wait(kinds, len(log))
        sent = Counter(event["channel"] for event in log)
        assert {kind: len(subscriber.told(kind)) for kind in kinds} == sent
        steps = [event["payload"] for event in log if event["channel"] == "step"]
        assert [line.split()[1:3] for line in subscriber.told("step")] == [
            [step["task_id"], step["step"]["type"]] for step in steps
        ]
        assert subscriber.told("missing") == []
        attempts = server.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json["attempts"]
        assert {attempt["status"] for attempt in attempts} == {204}

        # What was delivered already, under its id; then what nobody signed; then one that leaves a gap.
        known = steps[0]
        body = b'{"kickoff_id": "%b", "step": {"type": "thought", "content": "x"}, "task_id": "again"}' % (
            known["kickoff_id"].encode()
        )
        first = signed(secret, body, log[0]["id"], 1)
        assert subscriber.post("/step", first, body) == 204
        assert subscriber.post("/step", first | {"webhook-id": "evt_other"}, body) == 401
        assert subscriber.post("/step", signed("whsec_BBBB", body, "evt_other", 1), body) == 401
        assert subscriber.post("/step", {"content-type": "application/json"}, body) == 401
        assert subscriber.post("/step", first, body, method="PUT") == 405
        assert subscriber.post("/step", signed(secret, body, "evt_new", len(steps) + 2), body) == 204
        subscriber.wait(["missing"], 1)
        assert subscriber.told("step")[len(steps) :] == ["step: again thought x"]
        assert subscriber.told("missing") == [f"missing: event {len(steps) + 1} of {kickoff_id} at /step"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_that_is_none_is_a_500_and_so_comes_again(tmp_path, port, name):
    with Subscriber(name, tmp_path, "whsec_$$$", port) as subscriber:
        body = b'{"kickoff_id": "k"}'
        assert subscriber.post("/step", signed("whsec_AAAA", body, "evt_1", 1), body) == 500
