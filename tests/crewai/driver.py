"""A server's side of the child protocol, for tests: one host process, one `Child` for each fork."""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from pathlib import Path

BOOT = Path(__file__).parents[2] / "src/crewcast/crew/child/boot.py"
PROJECTS = Path(__file__).parent / "projects"
HEADER = """
from crewai.project import CrewBase
from crewai.tools import tool
from scripted import agent, answer, call, committed, crew, task, use
"""
FOOTER = """
@CrewBase
class Lab:
    def crew(self):
        return build()
"""
# Far longer than anything takes: a test that waits this long has failed.
PATIENCE = 60


class Lines:
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self.buffer = bytearray()

    def next(self):
        searched = 0
        while (end := self.buffer.find(b"\n", searched)) < 0:
            searched = len(self.buffer)
            try:
                received = self.sock.recv(1 << 20)
            except ConnectionResetError:  # it ended before it had read all acknowledgements
                received = b""
            if not received:
                return None
            self.buffer += received
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        assert line.isascii()
        return json.loads(line, parse_constant=_refuse)


def _refuse(constant):
    raise AssertionError(constant + " on the wire")


def newsroom(folder):
    """The classic project, in a folder of its own."""
    shutil.copytree(PROJECTS / "newsroom", folder, dirs_exist_ok=True)
    shutil.copy(PROJECTS / "scripted.py", folder / "src/scripted.py")
    return folder


def lab(folder, code, header=HEADER, footer=FOOTER):
    """A project whose crew is what `build()` in this code returns."""
    source = folder / "src/newsroom"
    source.mkdir(parents=True)
    (source / "__init__.py").touch()
    (source / "crew.py").write_text(header + textwrap.dedent(code) + footer)
    shutil.copy(PROJECTS / "scripted.py", folder / "src/scripted.py")
    return folder


class Host:
    def __init__(self, python=sys.executable, *flags, **environment):
        self.folder = tempfile.TemporaryDirectory(prefix="crewcast-child-")
        self.home = Path(self.folder.name)
        ours, theirs = socket.socketpair()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CREWAI_")}
        self.process = subprocess.Popen(
            [python, str(BOOT), "--control-fd", str(theirs.fileno()), *flags],
            pass_fds=[theirs.fileno()],
            env={**inherited, "HOME": self.folder.name, **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        theirs.close()
        self.control = ours
        self.lines = Lines(ours)
        self.waiting = []
        self.children = []
        self.greeting = [self.lines.next(), self.lines.next()]

    def fork(self):
        """Ask for a child, without waiting for the answer."""
        ours, theirs = socket.socketpair()
        log = self.home / f"{uuid.uuid4().hex}.log"
        child = Child(self, ours, log)
        with log.open("wb") as file:
            line = json.dumps({"op": "fork", "id": child.id}).encode() + b"\n"
            socket.send_fds(self.control, [line], [theirs.fileno(), file.fileno()])
        theirs.close()
        self.children.append(child)
        return child

    def start(self, project, op="run", **fields):
        child = self.fork()
        child.give(project, op, **fields)
        return child

    def wait(self, op, job_id):
        for message in self.waiting:
            if (message["op"], message["id"]) == (op, job_id):
                self.waiting.remove(message)
                return message
        while (message := self.lines.next()) is not None:
            if (message["op"], message.get("id")) == (op, job_id):
                return message
            self.waiting.append(message)
        raise AssertionError(f"the host closed before {op}")

    def hang_up(self):
        """Close the channel of every child, which ends those that are still there."""
        while self.children:
            self.children.pop().channel.close()

    def close(self):
        self.hang_up()
        self.control.close()
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.folder.cleanup()

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)


class Child:
    def __init__(self, host, channel, log):
        self.id = uuid.uuid4().hex
        self.run_id = str(uuid.uuid4())
        self.host = host
        self.channel = channel
        self.lines = Lines(channel)
        self.log_path = log

    def give(self, project, op="run", **fields):
        job = {
            "op": op,
            "project": {
                "root": str(project),
                "kind": "classic",
                "module": "newsroom.crew",
                "source": "src",
                "object": "",
                "definition": "",
                "package": False,
                **fields.pop("about", {}),
            },
            "run_id": self.run_id,
            "inputs": {},
            "stub_llm": None,
            "storage_dir": str(self.host.home / "storage"),
            **fields,
        }
        self.send(job)

    def send(self, message):
        self.channel.sendall(json.dumps(message).encode() + b"\n")

    def next(self):
        return self.lines.next()

    def until(self, op, kind=None):
        """The next line of this kind; what comes before it is acknowledged and dropped."""
        while (line := self.next()) is not None:
            if line["op"] == op and (kind is None or line.get("type") == kind):
                return line
            self.acknowledge(line)
        raise AssertionError(f"the channel closed before {op}")

    def quiet(self):
        """Whether it says nothing for a while."""
        return not self.lines.buffer and not select.select([self.channel], [], [], 0.2)[0]

    def acknowledge(self, line):
        if "sync" in line:
            # A thread that still waited has ended with the run.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send({"op": "ack", "n": line["sync"]})

    def rest(self):
        """Everything up to the end of the channel, acknowledged as it comes."""
        lines = []
        while (line := self.next()) is not None:
            lines.append(line)
            self.acknowledge(line)
        return lines

    def result(self):
        """All lines, and the child has ended well."""
        lines = self.rest()
        assert self.status() == 0, self.log()
        return lines

    @property
    def pid(self):
        if not hasattr(self, "_pid"):
            self._pid = self.host.wait("forked", self.id)["pid"]
        return self._pid

    def status(self):
        return self.host.wait("exited", self.id)["status"]

    def log(self):
        return self.log_path.read_text()


def wait_until_gone(pid):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")
