"""What a real server answers in all that can become of a run, against the OpenAPI document."""

import json
import shutil
import time
import urllib.request

import pytest

from crewcast.contract import openapi
from tests.support.documents import Promised, stream_events
from tests.support.receiver import Receiver
from tests.support.server import REPOSITORY, TOKEN, Answer, ServerProcess

PROJECTS = REPOSITORY / "tests" / "projects"
RUN = "/api/v1/runs/{kickoff_id}"
CREW = "odd-jobs"
# Also a kickoff, though one that lacks its inputs.
DECISION = {"execution_id": "nope", "task_id": "t", "human_feedback": "good", "is_approve": True}
BODIES = {"/api/v1/redeliveries": {"kickoff_id": "nope"}}
# What only a defect of ours or a full disk brings about: tests/unit/api has a store that cannot work.
OUT_OF_REACH = {500, 503}


class Story:
    """Asks, and keeps every answer with the route that gave it."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, Answer]] = []

    def ask(self, server, title, method, path, body=None, query="", headers=None, **names):
        answer = server.ask(method.upper(), path.format(**names) + query, body, **(headers or {}))
        self.told.append((title, method, path, answer))
        return answer


def until(condition, within=60):
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    root = tmp_path_factory.mktemp("told")
    story = Story()
    with ServerProcess(
        PROJECTS / "odd",
        root / "one",
        "--stub-llm",
        "--max-runs",
        "1",
        "--signatures",
        "v1,v1a",
        "--stop-grace",
        "0.2",
    ) as server:
        server.wait_until_ready()
        documents(story, server)
        refusals(story, server)
        runs(story, server, root / "go on")
        stopped_at_work(story, server, root / "never")
        stopping(story, server, root / "stop")
    with ServerProcess([PROJECTS / "broken", PROJECTS / "odd"], root / "two", "--stub-llm") as server:
        several(story, server)
    project = shutil.copytree(REPOSITORY / "examples" / "reviews", root / "recall_notice")
    with ServerProcess(project, root / "three", "--stub-llm", "--stub-delay", "0") as server:
        server.wait_until_ready()
        reviewing(story, server)
    return story


def documents(story, server):
    for path in ("/", "/healthz", "/openapi.json", "/asyncapi.yaml", "/docs"):
        story.ask(server, "without a token", "get", path, headers={"authorization": None})
    keys = "/.well-known/webhook-keys"
    for query in ("?origin=https://hooks.example.com", "?origin=ftp://x", ""):
        story.ask(server, f"public keys {query}", "get", keys, query=query, headers={"authorization": None})
    for path in ("/inputs", "/crews/{name}/inputs", "/crews", "/api/v1/nodes"):
        story.ask(server, "the only crew", "get", path, name=CREW)


def refusals(story, server):
    """Each route with a token or a name that it does not take, and a run that is not there; each body in all ways."""
    names = {"kickoff_id": "nope", "seq": 1, "name": CREW, "token": "nope"}
    for method, path, status in sorted(Promised(openapi.document()).answers()):
        body = BODIES.get(path, DECISION) if method == "post" else None
        match status:
            case 401:
                wrong = {"authorization": "Bearer wrong"}
                story.ask(server, "a wrong token", method, path, body, headers=wrong, **names)
            case 403:
                stranger = {"host": "evil.example"}
                story.ask(server, "a stranger's name", method, path, body, headers=stranger, **names)
            case 404:
                story.ask(server, "an unknown run", method, path, body, **names)
                story.ask(server, "an unknown crew", method, path, body, **names | {"name": "nobody"})
            case 413 if not path.endswith(
                ("/{token}", "/rerun")
            ):  # what is not there is refused before a body is read
                # By one byte: who has more to send may find the connection closed, and not read why.
                story.ask(server, "too large", method, path, b" " * (4 * 1024 * 1024 + 1), **names)
            case 400:
                story.ask(server, "no JSON", method, path, b"{", **names)
                story.ask(server, "no object", method, path, [], **names)
            case 422 if method == "post":
                story.ask(server, "nothing in it", method, path, {}, **names)

    for body in ({"origin": "all"}, *[{"origin": "https://hooks.example.com", "overlap": 60}] * 5):
        story.ask(server, f"rotated {body}", "post", "/api/v1/secrets/rotate", body)
    story.ask(server, "who?", "post", "/api/v1/secrets/rotate", {"origin": "nobody"})
    story.ask(server, "too long", "post", "/api/v1/secrets/rotate", {"origin": "all", "overlap": 1 << 40})

    def kickoff(title, body, **headers):
        story.ask(server, title, "post", "/kickoff", body, headers=headers)

    kickoff("an input is missing", {"inputs": {}})
    kickoff("a misplaced URL", {"inputs": {"topic": "x", "taskWebhookUrl": "http://127.0.0.1:1"}})
    kickoff("no webhook", {"inputs": {"topic": "x"}, "taskWebhookUrl": "ftp://x"})
    kickoff("meta is too large", {"inputs": {"topic": "x"}, "meta": {"x": "x" * 20000}})
    auth = {"strategy": "bearer", "token": "two\nlines"}
    kickoff("no header", {"inputs": {"topic": "x"}, "webhookAuthentication": auth})
    for field, value in (
        ("review", {"timeout": "soon"}),
        ("limits", {"tokens": 0}),
        ("timeout", 0),
        ("priority", 1000),
    ):
        kickoff(f"no {field}", {"inputs": {"topic": "x"}, field: value})
    kickoff("no object", {"inputs": {"topic": "x"}, "humanInputWebhook": "https://hooks.example.com"})
    story.ask(server, "in which state?", "get", "/api/v1/reviews", query="?state=lost")
    kickoff("the key is too long", {"inputs": {"topic": "x"}}, idempotency_key="k" * 300)


def runs(story, server, go_on):
    """A run while it is queued, at work and done, and one that fails; the subscriber takes some of their events."""

    def kickoff(title, body, **headers):
        return story.ask(server, title, "post", "/kickoff", body, headers=headers).json["kickoff_id"]

    def look(title, path, kickoff_id, query="", **names):
        return story.ask(server, title, "get", path, query=query, kickoff_id=kickoff_id, **names)

    answers = {"/task": 410, "/step": 204, "/crew": 503}
    with Receiver(lambda request, _: answers[request.path]) as receiver:
        body = {
            "inputs": {"topic": "tea", "act": "wait", "argument": str(go_on)},
            "meta": {"n": 1},
            **receiver.urls(""),
        }
        done = kickoff("at once", body)
        wishes = {"inputs": {"topic": None, "act": "raise"}, "webhooks": {}, "taskWebHook": 1}
        failed = kickoff("with warnings", wishes, idempotency_key="key-1")
        assert kickoff("the same again", wishes, idempotency_key="key-1") == failed
        body["inputs"] |= {"topic": "x"}
        story.ask(server, "the key again", "post", "/kickoff", body, headers={"idempotency_key": "key-1"})

        until(lambda: "current_task" in server.status(done))
        look("at work", "/status/{kickoff_id}", done)
        look("queued", "/status/{kickoff_id}", failed)
        story.ask(server, "at work", "delete", RUN, kickoff_id=done)
        stream = urllib.request.Request(
            f"{server.url}/api/v1/runs/{failed}/events",
            headers={"authorization": f"Bearer {TOKEN}", "accept": "text/event-stream"},
        )
        with urllib.request.urlopen(stream, timeout=60) as response:
            first = response.readline() + response.readline() + response.readline()
            go_on.touch()
            whole = Answer(response.status, dict(response.headers), first + response.read())
        story.told.append(("watched from its queue to its end", "get", f"{RUN}/events", whole))
        states = [data["state"] for name, data in stream_events(whole.body.decode()) if name == "run"]
        assert (states[0], states[-1]) == ("PENDING", "FAILED")

        assert server.wait_for(done)["state"] == "SUCCESS"
        look("completed", "/status/{kickoff_id}", done)
        look("failed", "/status/{kickoff_id}", failed)
        look("by its crew", "/crews/{name}/status/{kickoff_id}", done, name=CREW)
        for path in ("/resume", "/crews/{name}/resume"):
            story.ask(server, "nobody is asked", "post", path, DECISION | {"execution_id": done}, name=CREW)
        look("a whole log", f"{RUN}/events", done, "?limit=1000")
        look("a page of it", f"{RUN}/events", done, "?after=2&limit=1")
        look("the page after the last", f"{RUN}/events", done, "?after=1000")
        look("a failed run's log", f"{RUN}/events", failed)
        story.ask(server, "streamed when it is over", "get", f"{RUN}/events", kickoff_id=done,
                  headers={"accept": "text/event-stream", "last_event_id": "3"})  # fmt: skip
        for event in server.events(done):
            look(f"event {event['seq']}", f"{RUN}/events/{{seq}}", done, seq=event["seq"])
        look("an event that is not there", f"{RUN}/events/{{seq}}", done, seq=999)
        look("no number", f"{RUN}/events", done, "?limit=many")
        look("no number", f"{RUN}/deliveries", done, "?after=-1")
        receiver.wait(lambda got: {request.path for request in got} == set(answers))
        until(
            lambda: (
                len(look("all of it", f"{RUN}/deliveries", done).json["attempts"]) == len(receiver.requests)
            )
        )
        look("none of it", f"{RUN}/deliveries", failed)
        look("what it printed", f"{RUN}/logs", done)
        not_delivered(story, server, receiver, done)
    story.ask(server, "it has ended", "delete", RUN, kickoff_id=failed)


def not_delivered(story, server, receiver, done):
    """The run has dead letters at `/task` and a crew event that waits."""

    def again(title, body):
        return story.ask(server, title, "post", "/api/v1/redeliveries", body).json

    for query in ("", f"?kickoff_id={done}", f"?origin={receiver.url}&limit=1", "?limit=0"):
        told = story.ask(server, f"given up {query}", "get", "/api/v1/undelivered", query=query).json
        assert (told["next"] is None) == ("limit" not in query)
    story.ask(server, "since when?", "get", "/api/v1/undelivered", query="?since=lately")
    story.ask(server, "one waits", "get", "/api/v1/origins")
    story.ask(server, "one waits", "post", "/api/v1/origins/reset", {"origin": receiver.url})
    story.ask(server, "who?", "post", "/api/v1/origins/reset", {"origin": "nobody"})
    assert again("what was given up", {"kickoff_id": done, "dead_only": True})["lanes"]
    assert again("nothing", {"kickoff_id": done, "lane": 99}) == {"lanes": [], "next": None}
    since = {"since": "2020-01-01T00:00:00+01:00", "dead_only": True}
    assert again("of an origin", {"origin": receiver.url, **since})["lanes"]
    elsewhere = {"url": "http://10.0.0.1/", "authentication": {"strategy": "bearer", "token": "t"}}
    again("not there", {"kickoff_id": done, **elsewhere})
    story.ask(server, "with replays", "get", f"{RUN}/deliveries", kickoff_id=done)


def reviewing(story, server):
    """Runs that wait for a person: decided over the API and by the page, repeated, decided otherwise, stopped."""
    inputs = {"product": "baby monitor", "fault": "battery"}
    status, crew_status = "/status/{kickoff_id}", "/crews/{name}/status/{kickoff_id}"

    def waits(**fields):
        run = server.kickoff(inputs, **fields)
        until(lambda: server.status(run)["state"] == "PAUSED")
        return run

    def decide(title, run, path="/resume", *, approve=True, words="good", **fields):
        body = {"execution_id": run, "task_id": "notice_task", "human_feedback": words, "is_approve": approve}
        return story.ask(server, title, "post", path, body | fields, name="recall_notice")

    def page(title, method, link, body=None):
        token = link.rpartition("/")[2]
        headers = {"authorization": None, "content_type": "application/x-www-form-urlencoded"}
        return story.ask(server, title, method, "/reviews/{token}", body, headers=headers, token=token).status

    with Receiver() as receiver:
        auth = {"strategy": "bearer", "token": "t"}
        first = waits(
            humanInputWebhook={"url": f"{receiver.url}/human_input", "authentication": auth},
            review={"timeout": "1h", "default": "reject"}, limits={"tokens": 1 << 40}, priority=1, max_attempts=1,
            **receiver.urls(),
        )  # fmt: skip
        for path in (status, crew_status):
            story.ask(server, "it waits", "get", path, kickoff_id=first, name="recall_notice")
        for query in ("", "?state=all&limit=0", f"?kickoff_id={first}&limit=1", "?state=void", "?after=9999"):
            told = story.ask(server, f"reviews {query}", "get", "/api/v1/reviews", query=query).json
            assert (told["next"] is None) == ("limit=0" not in query)
        rerun = f"{RUN}/rerun"
        story.ask(server, "it waits", "post", rerun, {}, kickoff_id=first)
        [review] = server.ask("GET", "/api/v1/reviews").json["reviews"]
        link = review["review_url"]
        assert page("what waits", "get", link) == 200
        assert page("nothing chosen", "post", link, b"feedback=good") == 422
        assert page("too large", "post", link, b" " * (4 * 1024 * 1024 + 1)) == 413
        assert server.status(first)["state"] == "PAUSED"
        assert page("approved", "post", link, b"decision=approve&feedback=good") == 200
        assert page("otherwise", "post", link, b"decision=reject&feedback=shorter") == 409
        assert page("what was decided", "get", link) == 200
        assert decide("again, over the API", first).status == 200
        assert decide("otherwise", first, approve=False).status == 400
        assert server.wait_for(first)["state"] == "SUCCESS"
        for event in server.events(first):
            title = f"event {event['seq']} of a review"
            story.ask(server, title, "get", f"{RUN}/events/{{seq}}", kickoff_id=first, seq=event["seq"])
            assert "review_url" not in event["payload"]
        story.ask(server, "with a review", "get", f"{RUN}/events", kickoff_id=first)
        story.ask(server, "four channels", "get", f"{RUN}/deliveries", kickoff_id=first)
        story.ask(server, "decided", "get", "/api/v1/reviews", query="?state=decided")

        for title, body in (
            ("from its last task", {"from_task": "announcement_task", "inputs": {"product": "lamp"}}),
            ("no such task", {"from_task": "nope"}),
            ("too large", b" " * (4 * 1024 * 1024 + 1)),
            ("no JSON", b"{"),
        ):
            again = story.ask(server, title, "post", rerun, body, kickoff_id=first)
            if again.status == 200:
                assert server.wait_for(again.json["kickoff_id"])["state"] == "SUCCESS"

        second = waits()
        rejected = decide(
            "rejected", second, approve=False, taskWebhookUrl=f"{receiver.url}/task", stepWebhookUrl=None
        )
        assert rejected.json["status"] == "retrying"
        until(lambda: server.status(second).get("awaiting", {}).get("review") == 2)
        assert decide("of the crew", second, "/crews/{name}/resume", review=2).json["status"] == "resumed"
        assert decide("no such task", second, task_id="facts_task").status == 400
        assert server.wait_for(second)["state"] == "SUCCESS"

    for path in ("/stop/{kickoff_id}", "/crews/{name}/stop/{kickoff_id}"):
        run = waits()
        for title, found, expected in (
            ("it waits", run, 200), ("it is stopped", run, 200), ("it has completed", second, 400),
        ):  # fmt: skip
            answer = story.ask(server, title, "post", path, kickoff_id=found, name="recall_notice")
            assert answer.status == expected
        story.ask(server, "stopped", "get", status, kickoff_id=run)
    story.ask(server, "void ones too", "get", "/api/v1/reviews", query="?state=all")


def stopped_at_work(story, server, never):
    for path in ("/stop/{kickoff_id}", "/crews/{name}/stop/{kickoff_id}"):
        run = server.kickoff({"topic": "tea", "act": "wait", "argument": str(never)})
        until(lambda run=run: server.status(run)["state"] == "STARTED")
        answer = story.ask(server, "it is at work", "post", path, kickoff_id=run, name=CREW)
        assert answer.status == 202
        story.ask(server, "it stops", "get", "/status/{kickoff_id}", kickoff_id=run)
        assert server.wait_for(run)["state"] == "REVOKED"


def stopping(story, server, stop):
    last = server.kickoff({"topic": "tea", "act": "wait", "argument": str(stop)})
    until(lambda: server.status(last)["state"] == "STARTED")
    server.process.terminate()
    until(lambda: server.ask("GET", "/healthz").status == 503)
    story.ask(server, "while it stops", "get", "/healthz")
    for path in ("/kickoff", "/crews/{name}/kickoff"):
        story.ask(server, "while it stops", "post", path, {"inputs": {"topic": "x"}}, name=CREW)
    stop.touch()
    assert server.wait(60) == 0


def several(story, server):
    """Two crews, one of which cannot be loaded, and no default."""
    story.ask(server, "it does not load", "get", "/crews/{name}/inputs", name="broken")
    story.ask(server, "both", "get", "/crews")
    story.ask(server, "one is not loadable", "get", "/healthz")
    story.ask(server, "which?", "get", "/inputs")
    story.ask(server, "which?", "post", "/kickoff", {"inputs": {}})
    failed = story.ask(
        server, "of one that does not load", "post", "/crews/{name}/kickoff", {"inputs": {}}, name="broken"
    )
    server.wait_for(failed.json["kickoff_id"])
    story.ask(server, "it did not load", "get", "/status/{kickoff_id}", kickoff_id=failed.json["kickoff_id"])


def test_every_answer_is_as_described(story):
    promised = Promised(openapi.document())
    faults = {
        f"{method} {path} {answer.status}: {title}": found
        for title, method, path, answer in story.told
        if (found := promised.faults(method, path, answer))
    }
    assert faults == {}


def test_every_described_answer_was_given(story):
    given = {(method, path, answer.status) for _, method, path, answer in story.told}
    missing = Promised(openapi.document()).answers() - given
    assert {answer for answer in missing if answer[2] not in OUT_OF_REACH} == set()
    assert {(path, status) for _, path, status in given} >= {
        ("/crews/{name}/inputs", 500),
        ("/kickoff", 503),
        ("/healthz", 503),
    }


def test_the_served_documents_are_the_published_ones(story):
    answers = {path: answer for title, _, path, answer in story.told if title == "without a token"}
    assert json.loads(answers["/openapi.json"].body) == openapi.document()


@pytest.mark.parametrize(
    ("method", "path", "answer", "fault"),
    [
        ("get", "/inputs", Answer(200, {"Content-Type": "application/json"}, b'{"inputs": [1]}'), "1 is not of type"),
        ("get", "/inputs", Answer(200, {"Content-Type": "application/json"}, b'{"inputs": [], "x": 1}'), "'x' was"),
        ("get", "/inputs", Answer(200, {"Content-Type": "text/plain"}, b"x"), "text/plain is not described"),
        ("get", "/inputs", Answer(418, {"Content-Type": "text/plain"}, b"x"), "418 is not described"),
        ("get", "/inputs", Answer(401, {"Content-Type": "application/json"}, b"{}"), "WWW-Authenticate is missing"),
        ("get", f"{RUN}/events", Answer(200, {"Content-Type": "text/event-stream"}, b"event: x\ndata: 1\n\n"), "x is not"),
        ("get", f"{RUN}/events", Answer(200, {"Content-Type": "text/event-stream"}, b"event: run\ndata: {}\n\n"), "'crew'"),
    ],
)  # fmt: skip
def test_another_answer_would_be_told(method, path, answer, fault):
    found = Promised(openapi.document()).faults(method, path, answer)
    assert any(fault in line for line in found), found
