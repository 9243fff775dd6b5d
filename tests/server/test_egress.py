"""The operator's rules for where webhooks go, from the settings to the wire."""

import base64
import json
import socket
import threading
import time

import pytest

from tests.support.server import CLASSIC, ServerProcess

INPUTS = {"topic": "tea", "audience": "all"}


class Proxy:
    """Reads a CONNECT and says 403, again and again."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.heads.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def proxy():
    listening = Proxy()
    yield listening
    listening.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, proxy):
    data = tmp_path_factory.mktemp("guarded")
    rules = {
        "CREWCAST_PROXY": f"http://user:hunter2@127.0.0.1:{proxy.port}",
        "CREWCAST_DENY_NETWORKS": "127.0.0.2/32,93.184.215.0/24",
    }
    with ServerProcess(CLASSIC, data, "--stub-llm", "--stub-delay", "0.01", **rules) as process:
        process.wait_until_ready()
        yield process


@pytest.mark.parametrize("link", ["http://127.0.0.2/", "https://93.184.215.14/", "http://192.168.0.1/"])
def test_a_kickoff_to_what_is_not_allowed_is_422(guarded, link):
    assert guarded.ask("POST", "/kickoff", {"inputs": INPUTS, "crewWebhookUrl": link}).status == 422


def test_deliveries_go_through_the_proxy_and_its_refusal_is_told(guarded, proxy):
    kickoff_id = guarded.kickoff(INPUTS, crewWebhookUrl="https://93.184.216.34/hook?token=secret")
    guarded.wait_for(kickoff_id)
    until = time.monotonic() + 60
    while not (told := guarded.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json)["attempts"]:
        assert time.monotonic() < until, guarded.text
        time.sleep(0.05)
    attempt = told["attempts"][0]
    assert (attempt["outcome"], attempt["status"]) == ("proxy", None)
    assert "forbids the connection" in attempt["detail"]
    credentials = base64.b64encode(b"user:hunter2")
    assert proxy.heads[0] == (
        b"CONNECT 93.184.216.34:443 HTTP/1.1\r\nHost: 93.184.216.34:443\r\n"
        b"Proxy-Authorization: Basic " + credentials + b"\r\n\r\n"
    )
    for text in (guarded.text, json.dumps(told)):
        assert "hunter2" not in text
        assert credentials.decode() not in text
