"""A name server on loopback, and the system's own resolver turned to it."""

import ctypes
import ctypes.util
import socket
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Self

from crewcast.dispatch.egress import Address
from crewcast.dispatch.resolver import getaddrinfo

A, CNAME, AAAA = 1, 5, 28
TYPES = {"A": A, "AAAA": AAAA, "CNAME": CNAME}
NXDOMAIN, SERVFAIL = 3, 2

Record = tuple[str, str, str]  # name, type, data
Reply = Sequence[Record] | int | bytes | None
"""Records, an error code, bytes as they are, or nothing at all."""
Answers = Callable[[str, str, int], Reply]


class NameServer:
    """Answers what `answers(name, type, n)` says for the nth question of its kind, with a TTL of 0.

    `asked` counts the questions by (name, type); all that were put have been counted after the end. `patience` is how
    many seconds the system's resolver waits for an answer that it can use.
    """

    def __init__(self, answers: Answers, patience: int = 30) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._answers = answers
        self.patience = patience
        self._left: list[tuple[bytes, tuple[str, int]]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._stop = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def release(self) -> None:
        """Tells all who were left without an answer that there is none."""
        left, self._left = self._left, []
        for question, sender in left:
            self._socket.sendto(_message(question, _question(question)[2], SERVFAIL), sender)

    def __exit__(self, *_: object) -> None:
        self._stop = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(60)
        self.release()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            if self._stop and not question:
                return
            name, kind, end = _question(question)
            self.asked[name, kind] += 1
            reply = self._answers(name, kind, self.asked[name, kind])
            if reply is None:
                self._left.append((question, sender))
            else:
                self._socket.sendto(_message(question, end, reply), sender)

    def lookup(self, host: str, port: int) -> list[Address]:
        """The system's getaddrinfo, which asks this server for what its files do not know."""
        _turn_to(self.port, self.patience)
        return getaddrinfo(host, port)


def _question(message: bytes) -> tuple[str, str, int]:
    labels, at = [], 12
    while size := message[at]:
        labels.append(message[at + 1 : at + 1 + size].decode("ascii").lower())
        at += 1 + size
    (kind,) = struct.unpack_from("!H", message, at + 1)
    named = {number: name for name, number in TYPES.items()}
    return ".".join(labels), named.get(kind, str(kind)), at + 5


def _message(question: bytes, end: int, reply: Sequence[Record] | int | bytes) -> bytes:
    ident = question[:2]
    if isinstance(reply, bytes):
        return reply.replace(b"ID", ident, 1)
    code, records = (reply, []) if isinstance(reply, int) else (0, reply)
    head = ident + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
    body = b""
    for name, kind, data in records:
        families = {"A": socket.AF_INET, "AAAA": socket.AF_INET6}
        wire = socket.inet_pton(families[kind], data) if kind in families else _name(data)
        body += _name(name) + struct.pack("!HHIH", TYPES[kind], 1, 0, len(wire)) + wire
    return head + question[12:end] + body


def _name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


# glibc keeps the servers of a thread in `_res`, which programs may change (resolver(3)).


class _Server(ctypes.Structure):
    _fields_ = (
        ("family", ctypes.c_uint16),
        ("port", ctypes.c_uint16),
        ("address", ctypes.c_uint8 * 4),
        ("zero", ctypes.c_uint8 * 8),
    )


class _State(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_int),
        ("tries", ctypes.c_int),
        ("options", ctypes.c_ulong),
        ("count", ctypes.c_int),
        ("servers", _Server * 3),
    )


def _turn_to(port: int, patience: int) -> None:
    libc = ctypes.CDLL(None)
    libc.__res_init()
    libc.__res_state.restype = ctypes.POINTER(_State)
    state = libc.__res_state().contents
    state.seconds, state.tries, state.count = patience, 1, 1
    state.servers[0].port = socket.htons(port)
    state.servers[0].address[:] = (127, 0, 0, 1)


def can_turn() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "__res_state")
