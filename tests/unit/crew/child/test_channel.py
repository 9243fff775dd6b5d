"""Lines out in the order of their numbers, and the wait for an answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from crewcast.crew.child.channel import NO_MEMORY, Channel, Lines


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    with ours, theirs:
        yield ours, theirs


def test_lines_may_come_in_any_pieces(ends):
    ours, theirs = ends
    lines = Lines(ours)
    theirs.sendall(b'{"a":1}\n{"b"')
    assert lines.next() == {"a": 1}
    theirs.sendall(b':2}\n{"cut')
    assert lines.next() == {"b": 2}
    theirs.close()
    assert lines.next() is None


def test_nothing_follows_the_outcome(ends):
    ours, theirs = ends
    channel = Channel(ours)
    channel.send({"op": "a"})
    channel.send_last({"op": "finished"})
    channel.send({"op": "late"})
    ours.close()
    assert theirs.makefile().read().splitlines() == ['{"op":"a"}', '{"op":"finished"}']


def test_lines_that_wait_are_numbered_in_the_order_of_the_wire(ends, monkeypatch):
    ours, theirs = ends
    # The listener ends its process with its channel; here that is the test's own, so it stays where it is.
    gone = threading.Event()

    def stay(status):
        gone.set()
        threading.Event().wait()

    monkeypatch.setattr("crewcast.crew.child.channel.os._exit", stay)
    channel = Channel(ours)
    channel.listen()

    def send_and_wait():
        channel.wait(channel.send_numbered({"op": "event"}))

    waiting = [threading.Thread(target=send_and_wait) for _ in range(8)]
    for thread in waiting:
        thread.start()
    lines = theirs.makefile()
    numbers = [json.loads(lines.readline())["sync"] for _ in waiting]
    assert numbers == list(range(1, 9))
    assert any(thread.is_alive() for thread in waiting)
    # What is committed in order is acknowledged in order.
    theirs.sendall(b'{"op":"ack","n":3}\n')
    theirs.sendall(b'{"op":"ack","n":8}\n')
    for thread in waiting:
        thread.join(30)
        assert not thread.is_alive()
    lines.close()
    theirs.close()
    assert gone.wait(30)


def test_a_process_that_a_project_forks_says_nothing_and_holds_no_channel(ends):
    ours, theirs = ends
    channel = Channel(ours)
    alive, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            theirs.close()
            channel.send({"op": "not of this run"})
            channel.wait(channel.send_numbered({"op": "nor this"}))
            os.write(go, b"said")
            os.close(go)
            threading.Event().wait(30)
        finally:
            os._exit(0)
    os.close(go)
    try:
        assert os.read(alive, 4) == b"said"
        channel.send({"op": "event"})
        ours.close()
        # To the end of the channel, which the other process does not hold open.
        assert theirs.makefile().read().splitlines() == ['{"op":"event"}']
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(alive)


@pytest.mark.parametrize(
    ("breaks", "does", "status"),
    [
        ("module.encode", "send({})", NO_MEMORY),
        ("module.encode", "send_last({})", NO_MEMORY),
        ("module.Lines.next", "listen()", NO_MEMORY),
        ("threading.Condition.wait_for", "wait(channel.send_numbered({}))", NO_MEMORY),
        # What the server says is not understood.
        ("module.json.loads", "listen()", 70),
    ],
)
def test_a_process_that_cannot_tell_or_hear_ends(breaks, does, status):
    """With anything else it would wait for ever, or go on and tell half."""
    error = "MemoryError" if status == NO_MEMORY else "ValueError"
    story = f"""
        import socket, threading
        from crewcast.crew.child import channel as module

        def broken(*args):
            raise {error}

        ours, theirs = socket.socketpair()
        theirs.sendall(b"{{}}\\n")
        channel = module.Channel(ours)
        {breaks} = broken
        channel.{does}
        threading.Event().wait(30)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(story)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, error in ended.stderr) == (status, True), ended.stderr
