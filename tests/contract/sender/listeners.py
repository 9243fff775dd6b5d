"""Who notices when somebody comes, and who notes where somebody would have gone."""

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from crewcast.dispatch import dial
from crewcast.dispatch.dial import NoConnection
from crewcast.dispatch.egress import Address

LOOPBACKS = ("127.0.0.1", "127.0.0.2", "127.0.1.1", "127.1.2.3", "127.255.255.254", "::1")


class Listeners:
    """A port on many loopback addresses that notes every connection."""

    def __init__(self) -> None:
        self._accepted: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port = 0
        try:
            for address in LOOPBACKS:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                self._sockets.append(socket.create_server((address, self.port), family=family))
                self.port = self.port or self._sockets[0].getsockname()[1]
        except OSError:
            self.close()
            raise
        for listener, address in zip(self._sockets, LOOPBACKS, strict=True):
            thread = threading.Thread(target=self._accept, args=(listener, address), daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        for listener in self._sockets:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(60)

    def visitors(self) -> list[str]:
        """The addresses at which somebody came since the last call.

        Each listener is knocked at first: whoever came before is accepted before.
        """
        ours = set()
        for address in LOOPBACKS:
            with socket.create_connection((address, self.port), timeout=60) as knock:
                ours.add((address, knock.getsockname()[1]))
        others = []
        while ours:
            accepted = self._accepted.get(timeout=60)
            if accepted in ours:
                ours.remove(accepted)
            else:
                others.append(accepted[0])
        return others

    def _accept(self, listener: socket.socket, address: str) -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            connection.close()
            self._accepted.put((address, peer[1]))


@contextlib.contextmanager
def recorded() -> Iterator[list[Address]]:
    """Instead of connecting, where to."""
    reached: list[Address] = []

    async def tcp(address: Address, port: int) -> socket.socket:
        reached.append(address)
        raise NoConnection("refused", "recorded")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dial, "_tcp", tcp)
        yield reached
