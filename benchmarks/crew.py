"""A run through Crewcast against the bare `crew.kickoff()` in the same kind of child; start-up and memory."""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks import receiver

ROOT = Path(__file__).parents[1]
CLASSIC = ROOT / "examples" / "classic"
CHILD = ROOT / "src" / "crewcast" / "crew" / "child"
INPUTS = {"topic": "green tea", "audience": "cafe owners"}
LLM_DELAY = 0.05
PAIRS = 12
TOKEN = "bench"
MB = 1024 * 1024


class Server:
    """`crewcast dev` as a process; `began` is when it was started."""

    def __init__(
        self, data: Path, *flags: str, project: Path = CLASSIC, environ: Mapping[str, str] | None = None
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "crewcast",
            "dev",
            str(project),
            "--port",
            "0",
            "--data-dir",
            str(data),
        ]
        self.began = time.monotonic()
        self._process = subprocess.Popen(
            [*command, "--token", TOKEN, "--log-level", "error", *flags],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environ or {})},
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r"is served at (\S+)", line):
                self.url = found[1]
                break
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        request = urllib.request.Request(self.url + path, body and json.dumps(body).encode(), method=method)
        for name, value in {
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/json",
            **headers,
        }.items():
            request.add_header(name, value)
        return urllib.request.urlopen(request, timeout=60)

    def run(self, **fields: str) -> float:
        """Seconds from the kickoff's request until the stream of the run has ended."""
        began = time.monotonic()
        with self.ask("POST", "/kickoff", {"inputs": INPUTS, **fields}) as answer:
            kickoff_id = json.load(answer)["kickoff_id"]
        with self.ask("GET", f"/api/v1/runs/{kickoff_id}/events", accept="text/event-stream") as stream:
            story = stream.read()
        assert b'"SUCCESS"' in story, story[-2000:]
        return time.monotonic() - began

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def offline_llm() -> Iterator[str]:
    """The offline LLM in a process of its own, which both sides talk to."""
    code = (
        "import socket, sys, uvicorn\n"
        "from crewcast.stub_llm import create_app\n"
        "sock = socket.create_server(('127.0.0.1', 0))\n"
        "print(sock.getsockname()[1], flush=True)\n"
        f"uvicorn.Server(uvicorn.Config(create_app({LLM_DELAY}), log_level='error')).run([sock])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


class BareCrew:
    def __init__(self, environ: dict[str, str]) -> None:
        command = [
            sys.executable,
            str(ROOT / "benchmarks" / "bare_crew.py"),
            str(CHILD),
            str(CLASSIC),
            "market_brief.crew",
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environ
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        assert self._out.readline() == "ready\n"

    def run(self) -> float:
        print(json.dumps(INPUTS), file=self._in, flush=True)
        return float(self._out.readline())

    def close(self) -> None:
        self._in.close()
        self._process.wait()
        self._out.close()


def overhead() -> None:
    print(
        f"\nA run of examples/classic, LLM at {LLM_DELAY * 1000:.0f} ms a call, three webhooks, {PAIRS} pairs in turn"
    )
    with ExitStack() as stack:
        llm = stack.enter_context(offline_llm())
        hook = stack.enter_context(receiver.running()).url
        environ = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": llm, "OPENAI_API_BASE": llm}
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Server(data, environ=environ))
        bare = BareCrew(environ)
        stack.callback(bare.close)
        urls = {f"{channel}WebhookUrl": hook for channel in ("task", "step", "crew")}
        server.run(**urls)
        bare.run()
        pairs = [(bare.run(), server.run(**urls)) for _ in range(PAIRS)]
    plain, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    print(f"  bare kickoff {plain:.3f} s   through Crewcast {ours:.3f} s   (medians)")
    print(f"  through Crewcast / bare, median of the pairs: {ratio:.3f}   (wanted: at most 1.05)")


def start_and_memory() -> None:
    print("\nStart and memory of `crewcast dev examples/classic --stub-llm`")
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder), "--stub-llm") as server:
        with server.ask("GET", "/healthz"):
            print(f"  first answer after {time.monotonic() - server.began:.2f} s")
        server.run()
        print(f"  first finished run after {time.monotonic() - server.began:.2f} s")
        server.run()
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder), "--stub-llm", "--stub-delay", "0.5") as server,
    ):
        server.run()
        before = uss(server.pid)
        runs = [threading.Thread(target=server.run) for _ in range(4)]
        for run in runs:
            run.start()
        time.sleep(2.0)
        [host] = psutil.Process(server.pid).children()
        children = [used for child in host.children() if (used := uss(child.pid))]
        for run in runs:
            run.join()
        print(
            f"  memory (USS): server with the offline LLM {before:.0f} MB, host with CrewAI {uss(host.pid):.0f} MB, "
            f"each running crew {statistics.mean(children):.0f} MB ({len(children)} at once)"
        )


def uss(pid: int) -> float:
    with suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).memory_full_info().uss / MB)
    return 0.0


def report() -> None:
    overhead()
    start_and_memory()
