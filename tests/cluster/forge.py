"""The project `forge`, and the server that its model asks: it writes down each call, and says what the test says."""

import json
import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.support.server import REPOSITORY

FORGE = REPOSITORY / "tests" / "projects" / "forge"
TASKS = ["heat_task", "strike_task", "cool_task"]
PACE = 0.05  # seconds that a call takes
WEIGH = 'Thought: I need it.\nAction: Weigh\nAction Input: {"order": "one"}'


def forge(folder: Path, name: str = "forge", **variables: str) -> Path:
    """The project under that name, with these variables of its own."""
    root = folder / name
    shutil.copytree(FORGE, root, ignore=shutil.ignore_patterns("__pycache__"))
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('"forge"', f'"{name}"'))
    (root / ".env").write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
    return root


@dataclass
class Call:
    """`ended` is None while it is in flight."""

    order: str
    task: str
    pid: int
    began: float
    ended: float | None = None

    @property
    def alive(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except FileNotFoundError:
            return False


class Model:
    """The calls of an order's task are numbered over all processes, and the n-th follows the n-th line of the script:
    "say" ends the task, "weigh" calls the tool, "hold" and "hold weigh" wait for `go` before they do.
    """

    def __init__(self, pace: Callable[[], float] = lambda: PACE) -> None:
        self.calls: list[Call] = []
        self._pace = pace
        self._scripts: dict[str, dict[str, list[str]]] = {}
        self._gone: dict[str, int] = defaultdict(int)
        self._changed = threading.Condition()
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = model._answer(Call(**asked, began=time.time())).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: Any) -> None: ...

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None: ...  # a crew that was killed

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            for order in self._scripts:
                self._gone[order] = 1 << 30
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def follow(self, order: str, **script: list[str]) -> None:
        self._scripts[order] = script

    def go(self, order: str, calls: int = 1) -> None:
        """Lets so many calls more of the order go on that wait or will."""
        with self._changed:
            self._gone[order] += calls
            self._changed.notify_all()

    def of(self, order: str) -> list[Call]:
        with self._changed:
            return [call for call in self.calls if call.order == order]

    def wait_for(self, order: str, task: str, n: int = 1, within: float = 30) -> Call:
        """The n-th call of the order for the task, once it has come."""

        def found() -> list[Call]:
            return [call for call in self.calls if (call.order, call.task) == (order, task)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) >= n, within), f"{self.calls}"
            return found()[n - 1]

    def _answer(self, call: Call) -> str:
        with self._changed:
            number = sum((one.order, one.task) == (call.order, call.task) for one in self.calls)
            self.calls.append(call)
            self._changed.notify_all()
            script = self._scripts.get(call.order, {}).get(call.task, [])
            line = script[number] if number < len(script) else "say"
            if line.startswith("hold"):
                self._changed.wait_for(lambda: self._gone[call.order] > 0)
                self._gone[call.order] -= 1
        if not line.startswith("hold"):
            time.sleep(self._pace())
        call.ended = time.time()
        return (
            WEIGH
            if line.endswith("weigh")
            else f"Thought: I know.\nFinal Answer: {call.task} {os.urandom(4).hex()}"
        )
