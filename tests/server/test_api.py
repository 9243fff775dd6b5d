"""The AMP API's answers, the bad input above all: each with a clear error, and nothing lost."""

import http.client
import json
import socket
import subprocess
import sys
import threading
import urllib.parse
import uuid
from contextlib import closing

import pytest

from tests.support.server import TOKEN, Answer

INPUTS = {"topic": "tea", "audience": "all"}


def check_error(answer, status: int, **details) -> dict:
    assert answer.status == status, answer.body
    body = answer.json
    assert set(body) >= {"error", "message", "detail", "details"}
    assert isinstance(body["detail"], str)
    assert body["details"] == details or not details
    return body


def test_health_needs_no_token(server):
    assert server.ask("GET", "/", authorization=None).body == b"Healthy"
    assert server.ask("GET", "/healthz", authorization=None).json == {
        "status": "ok",
        "crews": {"market_brief": "ready"},
    }


def test_inputs_are_the_crews_placeholders(server):
    assert server.ask("GET", "/inputs").json == {"inputs": ["audience", "topic"]}


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/inputs"), ("POST", "/kickoff"), ("GET", "/status/x"), ("GET", "/api/v1/runs/x/events"),
     ("GET", "/api/v1/runs/x/logs"), ("GET", "/api/v1/runs/x/deliveries")],
)  # fmt: skip
def test_a_wrong_or_missing_token_is_401(server, method, path, authorization):
    answer = server.ask(method, path, {} if method == "POST" else None, authorization=authorization)
    body = check_error(answer, 401)
    assert body["error"] == "Unauthorized"
    assert body["message"] == "Invalid or missing bearer token"
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("body", [b"", b"{", b'"x"', b"[]", b'{"inputs": {"topic": NaN}}', b"\xff\xfe"])
def test_a_body_that_is_no_json_object_is_400(server, body):
    check_error(server.ask("POST", "/kickoff", body), 400)


def test_a_body_over_the_limit_is_413_without_reading_it_all(server):
    limit = 4 * 1024 * 1024
    where = urllib.parse.urlsplit(server.url)
    with closing(http.client.HTTPConnection(where.hostname, where.port, timeout=60)) as connection:
        connection.putrequest("POST", "/kickoff")
        connection.putheader("authorization", f"Bearer {TOKEN}")
        connection.putheader("content-length", str(5 * limit))
        # One byte too many and no more, so that nothing is left unread when the server closes: it would be a reset.
        connection.endheaders(b" " * (limit + 1))
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.headers), response.read())
    check_error(answer, 413, max_body_bytes=limit)
    assert response.getheader("connection") == "close"


def test_missing_inputs_are_named(server):
    body = check_error(
        server.ask("POST", "/kickoff", {"inputs": {"topic": "x"}}), 422, missing_inputs=["audience"]
    )
    assert body["error"] == "Validation Error"
    assert body["detail"] == "Missing required inputs: audience"
    check_error(server.ask("POST", "/kickoff", {}), 422, missing_inputs=["audience", "topic"])


@pytest.mark.parametrize("url", ["ftp://x", "https://user:secret@x.example/", "/relative", "https://", 5])
def test_a_url_that_cannot_be_a_webhook_is_named(server, url):
    body = check_error(server.ask("POST", "/kickoff", {"inputs": INPUTS, "stepWebhookUrl": url}), 422)
    assert body["details"] == {"field": "stepWebhookUrl"}
    assert "secret" not in body["message"]


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "169.254.169.254", "[fd00::1]", "192.168.1.1", "0x0a000001", "[::ffff:10.0.0.1]"]
)
def test_a_literal_address_that_egress_forbids_is_named(server, host):
    answer = server.ask("POST", "/kickoff", {"inputs": INPUTS, "crewWebhookUrl": f"http://{host}/x"})
    check_error(answer, 422, field="crewWebhookUrl")


def test_urls_under_inputs_get_a_did_you_mean(server):
    answer = server.ask("POST", "/kickoff", {"inputs": INPUTS | {"crewWebhookUrl": "http://127.0.0.1:1/"}})
    assert "did you mean" in check_error(answer, 422, misplaced=["crewWebhookUrl"])["message"]


@pytest.mark.parametrize(
    "name", ["0f8f3b1e-6a0c-4d5e-9b57-2f1f8a6f9c11", "nope", "%00", "a" * 500, "%F0%9F%98%80"]
)
def test_an_unknown_kickoff_id_is_404(server, name):
    answer = server.ask("GET", f"/status/{name}")
    body = check_error(answer, 404)
    assert (body["error"], body["state"]) == ("Execution not found", "NOT FOUND")
    check_error(server.ask("GET", f"/api/v1/runs/{name}/events"), 404)


def test_unknown_paths_and_methods_answer_in_the_same_shape(server):
    check_error(server.ask("GET", "/nothing/here"), 404)
    check_error(server.ask("GET", "/kickoff"), 405)


def test_a_base_url_with_a_slash_works(server):
    assert server.ask("GET", "//inputs").status == 200


def test_a_kickoff_answers_with_its_ids_and_warnings(server):
    body = {
        "inputs": INPUTS,
        "restoreFromStateId": "x",
        "webhooks": {"events": []},
        "taskWebHook": 1,
    }
    answer = server.ask("POST", "/kickoff", body)
    told = answer.json
    assert answer.status == 200
    assert uuid.UUID(told["kickoff_id"]).version == 7
    assert told["execution_id"] == told["kickoff_id"]
    assert len(told["warnings"]) == 3
    plain = server.ask("POST", "/kickoff", {"inputs": INPUTS, "taskWebhookUrl": None}).json
    assert set(plain) == {"kickoff_id", "execution_id"}


def test_the_same_idempotency_key_starts_one_run(server):
    key = uuid.uuid4().hex
    answers = []

    def ask() -> None:
        answers.append(server.ask("POST", "/kickoff", {"inputs": INPUTS}, idempotency_key=key))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {200}
    assert len({answer.json["kickoff_id"] for answer in answers}) == 1
    assert sorted(answer.headers.get("idempotency-replayed", "") for answer in answers) == [""] + ["true"] * 7
    check_error(server.ask("POST", "/kickoff", {"inputs": INPUTS | {"topic": "x"}}, idempotency_key=key), 422)
    check_error(server.ask("POST", "/kickoff", {"inputs": INPUTS}, idempotency_key="k" * 300), 422)


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:1", 200), ("[::1]:8000", 200), ("crew.localhost", 200), ("evil.example", 403),
     ("evil.example:8000", 403), ("127.0.0.1.evil.example", 403), ("", 403)],
)  # fmt: skip
def test_dev_answers_only_to_names_that_no_stranger_can_point_here(server, host, status):
    with socket.create_connection(urllib.parse.urlsplit(server.url).netloc.split(":"), timeout=60) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    assert answer.split(b" ")[1] == str(status).encode()


def test_a_page_of_the_log_and_one_event(server):
    kickoff_id = server.kickoff(INPUTS)
    server.wait_for(kickoff_id)
    events = server.events(kickoff_id)
    page = server.ask("GET", f"/api/v1/runs/{kickoff_id}/events?after=2&limit=3").json["events"]
    assert [event["seq"] for event in page] == [3, 4, 5]
    assert server.ask("GET", f"/api/v1/runs/{kickoff_id}/events/3").json == events[2]
    check_error(server.ask("GET", f"/api/v1/runs/{kickoff_id}/events/999"), 404)
    check_error(server.ask("GET", f"/api/v1/runs/{kickoff_id}/events?after=x"), 422, field="after")
    arabic = urllib.parse.quote("\N{ARABIC-INDIC DIGIT THREE}")
    check_error(server.ask("GET", f"/api/v1/runs/{kickoff_id}/events?limit={arabic}"), 422, field="limit")
    check_error(server.ask("GET", f"/api/v1/runs/{kickoff_id}/events/{arabic}"), 404)


def stream(server, kickoff_id: str, **headers) -> list[tuple[str, str | None, dict]]:
    text = server.ask(
        "GET", f"/api/v1/runs/{kickoff_id}/events", accept="text/event-stream", **headers
    ).body.decode()
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":")
        )
        if "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


def test_the_stream_tells_the_whole_run_and_ends_with_it(server):
    kickoff_id = server.kickoff(INPUTS)
    found = stream(server, kickoff_id)
    events = [body for name, _, body in found if name == "event"]
    assert events == server.events(kickoff_id)
    assert [body["state"] for name, _, body in found if name == "run"][-1] == "SUCCESS"
    later = stream(server, kickoff_id, last_event_id=str(len(events) - 1))
    assert [seq for name, seq, _ in later if name == "event"] == [str(len(events))]


def test_the_published_asyncapi_document_is_served(server):
    answer = server.ask("GET", "/asyncapi.yaml", authorization=None)
    assert answer.status == 200
    assert b"asyncapi: 3.0.0" in answer.body


def cli(server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crewcast", *arguments, "--url", server.url, "--token", TOKEN]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_client_kicks_off_and_watches(server):
    done = cli(server, "kickoff", "--watch", "topic=oolong", "audience=all")
    assert done.returncode == 0, done.stderr
    kickoff_id, *lines = done.stdout.splitlines()
    assert any("task " in line and "brief_task" in line and "completed" in line for line in lines)
    assert "crew " in lines[-1]
    told = json.loads(cli(server, "status", kickoff_id).stdout)
    assert told["state"] == "SUCCESS"
    assert "oolong" in told["result"]["output"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kickoff", "topic=x"], "Missing required inputs: audience (HTTP 422)"),
        (["kickoff", "topic"], "write key=value"),
        (["kickoff", "n:={"], "n is not JSON"),
        (["status", "nope"], "There is no execution 'nope' here (HTTP 404)"),
    ],
)
def test_the_client_says_what_to_correct(server, arguments, said):
    done = cli(server, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_without_a_server_says_so():
    command = [sys.executable, "-m", "crewcast", "status", "x", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "does not answer" in done.stderr


def test_the_client_with_a_wrong_token_names_the_variable(server):
    command = [sys.executable, "-m", "crewcast", "status", "x", "--url", server.url, "--token", "wrong"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "CREWCAST_TOKEN" in done.stderr) == (2, True)


RESUME = {"execution_id": "nope", "task_id": "t", "human_feedback": "good", "is_approve": True}
CAMEL = {"executionId": "nope", "taskId": 1, "humanFeedback": "", "isApprove": False}


@pytest.mark.parametrize("path", ["/resume", "/crews/market_brief/resume"])
@pytest.mark.parametrize("body", [RESUME, CAMEL])
def test_no_run_waits_for_a_person_so_none_is_resumed(server, path, body):
    assert check_error(server.ask("POST", path, body), 404)["error"] == "Execution not found"
    kickoff_id = server.kickoff(INPUTS)
    name = "execution_id" if "execution_id" in body else "executionId"
    refused = check_error(server.ask("POST", path, body | {name: kickoff_id}), 400)
    assert refused["message"] == "Execution is not in pending human input state"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"execution_id": None}, "execution_id"),
        ({"task_id": None}, "task_id"),
        ({"task_id": [1]}, "task_id"),
        ({"task_id": True}, "task_id"),
        ({"human_feedback": 5}, "human_feedback"),
        ({"is_approve": "yes"}, "is_approve"),
        ({"is_approve": None}, "is_approve"),
    ],
)
def test_a_decision_that_is_incomplete_is_422(server, change, field):
    check_error(server.ask("POST", "/resume", RESUME | change), 422, field=field)


def test_the_paths_of_a_single_crew_work_by_its_name_too(server):
    assert server.ask("GET", "/crews/market_brief/inputs").json == {"inputs": ["audience", "topic"]}
    assert server.ask("GET", "/crews").json["default"] == "market_brief"
    assert check_error(server.ask("GET", "/crews/other/inputs"), 404, crews=["market_brief"])
