"""Secrets on real servers: rotation while one runs and while it is stopped, public keys, authentication, a lost key."""

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing

import pytest

from crewcast.webhooks import SignatureError, verify
from tests.support.receiver import Receiver
from tests.support.server import REPOSITORY, TOKEN, ServerProcess

ODD = REPOSITORY / "tests" / "projects" / "odd"
INPUTS = {"topic": "tea"}
STRANGER = "https://hooks.example.com"


def secret(*arguments: object, fails: bool = False, **environ: str) -> str:
    """What `crewcast secret ...` prints; of one that fails, its one line on stderr."""
    command = [sys.executable, "-m", "crewcast", "secret", *map(str, arguments)]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CREWCAST_")}
    done = subprocess.run(command, capture_output=True, text=True, env=variables | environ)
    assert done.returncode == (2 if fails else 0), done
    return (done.stderr if fails else done.stdout).strip()


def deliveries(server, receiver, *, taken: bool = True, **fields) -> list:
    """The requests of one more run, whole. `taken`: all are, and a server that dies next sends none of them again."""
    before = len(receiver.requests)
    kickoff_id = server.kickoff(INPUTS, **receiver.urls(), **fields)
    server.wait_for(kickoff_id)
    count = len(server.events(kickoff_id))
    found: list = receiver.wait(lambda all_: len(all_) >= before + count)[before:]
    if taken:
        server.wait_until_delivered(kickoff_id)
    assert {one.headers["crewcast-kickoff-id"] for one in found} == {kickoff_id}
    return found


def fits(key: str, request) -> bool:
    try:
        verify(key, request.headers, request.body, tolerance=3600)
    except SignatureError:
        return False
    return True


def signers(requests, *keys: str) -> list[bool]:
    """Which of the keys verify every one of the requests; each fits all of them or none."""
    table = [[fits(key, request) for key in keys] for request in requests]
    assert all(row == table[0] for row in table), table
    return table[0]


def test_a_secret_rotates_while_the_server_runs_and_stays_so(tmp_path):
    data = ("--data-dir", tmp_path)
    with Receiver() as receiver:
        origin = ("--origin", f"{receiver.url}/some/path")
        with ServerProcess(ODD, tmp_path, "--stub-llm") as server:
            running = ("--url", server.url, "--token", TOKEN)
            first = secret("show", *origin, *data)
            other = secret("show", "--origin", STRANGER, *data)
            assert signers(deliveries(server, receiver), first) == [True]

            assert "ask it with --url" in secret("rotate", *origin, *data, fails=True)
            said = secret("rotate", *origin, "--overlap", "7d", *running)
            assert said.startswith(
                f"{receiver.url}: generation 1 signs from now on\nolder secrets sign beside it until 2"
            )
            second = secret("show", *origin, *data)
            assert first != second
            assert secret("show", "--origin", STRANGER, *data) == other
            during = deliveries(server, receiver)
            assert signers(during, first, second, other) == [True, True, False]
            assert {one.headers["webhook-signature"].count("v1,") for one in during} == {2}
            listed = secret("list", *origin, *data).split("\n")
            assert [line.split()[:2] for line in listed[1:]] == [[receiver.url, "1"], [receiver.url, "0"]]
            server.kill()

        with ServerProcess(ODD, tmp_path, "--stub-llm") as server:
            assert signers(deliveries(server, receiver), first, second) == [True, True], "after a crash too"
            # The server is found by its variables, as the other clients find it.
            found = {"CREWCAST_URL": server.url, "CREWCAST_TOKEN": TOKEN}
            said = secret("rotate", "--origin", "all", "--overlap", "0", **found)
            assert said == "every origin: generation 2 signs from now on\nolder secrets have ended"
            third = secret("show", *origin, *data)
            assert signers(deliveries(server, receiver), first, second, third) == [False, False, True]
            assert secret("show", "--origin", STRANGER, *data) not in (other, third)
            unnamed = secret("rotate", "--origin", "all", fails=True, CREWCAST_URL=server.url)
            assert "Set CREWCAST_TOKEN" in unnamed
            assert server.terminate() == 0

        assert secret("rotate", *origin, *data, CREWCAST_URL="http://127.0.0.1:1").count("generation 3") == 1
        with ServerProcess(ODD, tmp_path, "--stub-llm") as server:
            fourth = secret("show", *origin, *data)
            assert signers(deliveries(server, receiver), second, third, fourth) == [False, True, True]
            for text in (first, second, third, fourth):
                assert text not in server.text
    listed = secret("list", *data).split("\n")
    assert [line.split()[:2] for line in listed[1:]] == [
        ["all", "2"],
        [receiver.url, "3"],
        [receiver.url, "2"],
    ]


def test_what_cannot_be_rotated_is_said_and_changes_nothing(tmp_path):
    data = ("--data-dir", tmp_path)
    assert "no data folder" in secret(
        "rotate", "--origin", STRANGER, "--data-dir", tmp_path / "x", fails=True
    )
    assert not (tmp_path / "x").exists()
    assert "--origin" in secret("rotate", "--origin", "nowhere", *data, fails=True)
    assert "such as 24h" in secret("rotate", "--origin", STRANGER, "--overlap", "long", *data, fails=True)
    for _ in range(4):
        secret("rotate", "--origin", STRANGER, *data)
    before = secret("list", *data)
    assert "5 secrets are in force already" in secret("rotate", "--origin", STRANGER, *data, fails=True)
    assert secret("list", *data) == before
    assert "--public" not in before
    assert "v1,v1a" in secret("show", "--origin", STRANGER, "--public", *data, fails=True)


def public_keys(server, origin: str):
    with urllib.request.urlopen(
        f"{server.url}/.well-known/webhook-keys?origin={origin}", timeout=30
    ) as answer:
        return json.load(answer)


def test_a_subscriber_verifies_with_public_keys_alone(tmp_path):
    both = ("--signatures", "v1,v1a")
    with Receiver() as receiver, ServerProcess(ODD, tmp_path, "--stub-llm", *both) as server:
        told = public_keys(server, f"{receiver.url}/step?x=y")
        assert (told["origin"], told["signatures"]) == (receiver.url, ["v1", "v1a"])
        [first] = told["keys"]
        assert (first["from"], first["until"]) == (None, None)
        [stranger] = public_keys(server, STRANGER)["keys"]
        sent = deliveries(server, receiver)
        assert signers(sent, first["key"], stranger["key"]) == [True, False]

        rotated = {"origin": receiver.url, "overlap": 3600}
        assert server.ask("POST", "/api/v1/secrets/rotate", rotated).status == 200
        newest, older = public_keys(server, receiver.url)["keys"]
        assert (older["key"], older["id"]) == (first["key"], first["id"])
        assert newest["until"] is None
        assert newest["from"] < older["until"]
        secret_ = secret("show", "--origin", receiver.url, "--data-dir", tmp_path)
        assert signers(deliveries(server, receiver), newest["key"], older["key"], secret_) == [True] * 3
        assert public_keys(server, STRANGER)["keys"] == [stranger]
        shown = secret("show", "--public", "--origin", receiver.url, *both, "--data-dir", tmp_path)
        assert shown == newest["key"]
        assert newest["key"] in secret("list", "--origin", receiver.url, *both, "--data-dir", tmp_path)


def test_a_rotation_that_another_process_commits_is_in_force_without_a_restart(tmp_path):
    both = ("--signatures", "v1,v1a")
    with Receiver() as receiver, ServerProcess(ODD, tmp_path, "--stub-llm", *both) as server:
        [first] = public_keys(server, receiver.url)["keys"]
        now = time.time_ns() // 1000
        with closing(sqlite3.connect(tmp_path / "crewcast.db", timeout=60)) as db, db:
            row = (receiver.url, now, now + 3600 * 1_000_000)
            db.execute("INSERT INTO rotation (number, origin, at, until) VALUES (1, ?, ?, ?)", row)
        end = time.monotonic() + 30  # a second by itself; the machine may have other things to do
        while len(found := public_keys(server, receiver.url)["keys"]) == 1:
            assert time.monotonic() < end
            time.sleep(0.05)
        newest, older = found
        assert older["key"] == first["key"]
        secret_ = secret("show", "--origin", receiver.url, "--data-dir", tmp_path)
        assert signers(deliveries(server, receiver), newest["key"], older["key"], secret_) == [True] * 3


def test_without_v1a_there_are_no_public_keys(server):
    assert public_keys(server, STRANGER) == {"origin": STRANGER, "signatures": ["v1"], "keys": []}


def test_a_server_without_v1a_signs_once(server, receiver):
    kickoff_id = server.kickoff({"topic": "tea", "audience": "all"}, crewWebhookUrl=f"{receiver.url}/crew")
    server.wait_for(kickoff_id)
    [request] = receiver.wait(lambda all_: len(all_) >= 1)
    assert re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", request.headers["webhook-signature"])


# --- authentication ---------------------------------------------------------------------------

WORD = "s3cret-of-the-subscriber"


def test_a_subscriber_gets_what_the_kickoff_gave_and_nobody_else_sees_it(tmp_path):
    authentication = {
        "taskWebhookUrl": {"strategy": "bearer", "token": WORD},
        "stepWebhookUrl": {"strategy": "headers", "headers": {"X-API-Key": WORD, "X-Gitlab-Token": "g"}},
        "crewWebhookUrl": {"strategy": "basic", "username": "crew", "password": WORD},
    }
    basic = base64.b64encode(f"crew:{WORD}".encode()).decode()
    wanted = {
        "/task": {"authorization": f"Bearer {WORD}"},
        "/step": {"x-api-key": WORD, "x-gitlab-token": "g"},
        "/crew": {"authorization": f"Basic {basic}"},
    }
    names = {name for headers in wanted.values() for name in headers}
    kept = {
        "humanInputWebhook": {
            "url": "https://a.example",
            "authentication": {"strategy": "bearer", "token": WORD},
        }
    }
    with Receiver(lambda request, _: 503 if request.path == "/crew" else 204) as receiver:
        with ServerProcess(ODD, tmp_path, "--stub-llm", "--retry-schedule", "0.2") as server:
            sent = deliveries(server, receiver, taken=False, webhookAuthentication=authentication, **kept)
            kickoff_id = sent[0].headers["crewcast-kickoff-id"]
            for request in sent:
                assert {name: request.headers[name] for name in names & set(request.headers)} == wanted[
                    request.path
                ]
            answers = [
                server.ask("GET", f"/api/v1/runs/{kickoff_id}/{what}").body
                for what in ("events", "deliveries")
            ]
            refused = server.ask(
                "POST",
                "/kickoff",
                {"inputs": INPUTS, "webhookAuthentication": {"strategy": "bearer", "token": WORD + "\n"}},
            )
            assert refused.status == 422
            server.kill()
        stored = b"".join(
            file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != "lock"
        )
        for place in (*answers, refused.body, server.text.encode(), stored):
            assert WORD.encode() not in place
            assert basic.encode() not in place
        # What is sealed is opened by the next server, too.
        receiver.answer = lambda request, n: 204
        before = len(receiver.requests)
        with ServerProcess(ODD, tmp_path, "--stub-llm", "--retry-schedule", "0.2") as server:
            after = receiver.wait(lambda all_: len(all_) > before)[before:]
            assert after[0].path == "/crew"
            assert after[0].headers["authorization"] == f"Basic {basic}"


# --- the master key ---------------------------------------------------------------------------


def refused_start(data, **environ: str) -> str:
    server = ServerProcess(ODD, data, "--stub-llm", **environ)
    assert server.wait(60) == 2
    return server.text


def test_a_database_that_comes_back_without_its_key_is_told_of(tmp_path):
    data = ("--data-dir", tmp_path)
    with ServerProcess(ODD, tmp_path, "--stub-llm") as server:
        server.wait_until_listening()
        assert server.terminate() == 0
    first = secret("show", "--origin", STRANGER, *data)
    lost = (tmp_path / "secret.key").read_text()
    (tmp_path / "secret.key").unlink()
    assert "which is not there" in refused_start(tmp_path)
    assert not (tmp_path / "secret.key").exists()
    other = base64.b64encode(bytes(32)).decode()
    said = refused_start(tmp_path, CREWCAST_KEY=other)
    assert "was written with the master key" in said
    assert other not in said

    # Its key as a variable is as good as the file.
    with ServerProcess(ODD, tmp_path, "--stub-llm", CREWCAST_KEY=lost.strip()) as server:
        server.wait_until_listening()
        assert server.terminate() == 0
    assert secret("show", "--origin", STRANGER, *data, CREWCAST_KEY=lost.strip()) == first

    # And if it is really lost:
    assert "now belongs to the master key" in secret("replace", *data)
    with ServerProcess(ODD, tmp_path, "--stub-llm") as server:
        server.wait_until_listening()
        assert secret("show", "--origin", STRANGER, *data) != first
        assert "a server is running" in secret("replace", *data, fails=True)


@pytest.mark.parametrize("key", ["", "c2hvcnQ=", "s3cret!"])
def test_a_key_that_is_none_is_refused_and_not_repeated(tmp_path, key):
    said = secret("show", "--origin", STRANGER, "--data-dir", tmp_path, fails=True, CREWCAST_KEY=key)
    assert said.startswith("crewcast: CREWCAST_KEY: must ")
    assert len(said.split("\n")) == 1
    assert not key or key not in said
