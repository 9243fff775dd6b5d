"""The page of a review: what a task made is shown and never run, to look decides nothing, and a form decides once."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest

from crewcast.api.app import Context, create_app
from crewcast.api.auth import Tokens
from crewcast.clock import ManualClock
from crewcast.contract import openapi
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.backoff import HOUR
from crewcast.core.keyring import KeyRing
from crewcast.core.review import Choice, Default, How, Review, ReviewState
from crewcast.core.review_link import ReviewLinks
from crewcast.core.run import RunState, new_run
from crewcast.store.sqlite import SQLiteStore
from tests.support.documents import Promised
from tests.support.server import Answer

RUN = "01a20bb3-f86a-76d4-9da0-7cc97b4db906"
OTHER = "01a20bb3-f86a-76d4-9da0-7cc97b4db907"
LINKS = ReviewLinks(bytes(32), "https://crews.example.com")
HOSTILE = "</pre><script>alert(1)</script><img src=x onerror='y'>\"&amp;"


class World:
    """A store with one run that waits for a person, and the application in front of it."""

    def __init__(self, runner: asyncio.Runner, store: SQLiteStore) -> None:
        self.runner, self.store, self.clock = runner, store, ManualClock()
        self.app = create_app(
            Context(
                store=store,
                clock=self.clock,
                tokens=Tokens("t"),
                crews={},
                check_url=lambda _: None,
                random=bytes,
                log_file=lambda _: None,  # type: ignore[arg-type,return-value]
                keys=KeyRing(bytes(32)),
                seal=lambda *_: b"",
                links=LINKS,
                reseal=lambda lane, run_id: None,
            )
        )

    def waits(self, **fields) -> None:
        self.runner.run(self._waits(fields))

    async def _waits(self, fields) -> None:
        now = self.clock.now()
        await self.store.create_run(new_run(RUN, "odd & co", b"{}", now), [], None, now)
        [run] = await self.store.claim_runs(["odd & co"], 1, "lease", now, HOUR)
        review = Review(
            **{
                "run_id": RUN, "number": 1, "task_id": "notice", "index": 1, "uuid": "u", "agent": "Officer",
                "output": "the notice", "asked_at": now,
            } | fields
        )  # fmt: skip
        assert await self.store.append(runs.pause(run, now), [], "lease", {}, reviews.ask(review))

    def review(self) -> Review:
        found = self.runner.run(self.store.review(RUN))
        assert found is not None
        return found

    def state(self) -> RunState:
        found = self.runner.run(self.store.run(RUN))
        assert found is not None
        return found.state

    def ask(self, method: str, token: str | None = None, form: dict[str, str] | bytes = b"") -> Answer:
        path = "/reviews/" + (LINKS.token(RUN, 1) if token is None else token)
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        headers = [(b"host", b"evil.example"), (b"content-type", b"application/x-www-form-urlencoded")]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        async def ask():
            await self.app(scope, receive, send)

        self.runner.run(ask())
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        answer = Answer(sent[0]["status"], told, b"".join(part.get("body", b"") for part in sent[1:]))
        if method != "HEAD":
            assert Promised(openapi.document()).faults(method.lower(), "/reviews/{token}", answer) == []
        return answer

    def decide(self, decision: str, feedback: str = "") -> Answer:
        return self.ask("POST", None, {"decision": decision, "feedback": feedback})


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with asyncio.Runner() as runner, opened(runner, tmp_path) as store:
        yield World(runner, store)


@contextmanager
def opened(runner: asyncio.Runner, folder) -> Iterator[SQLiteStore]:
    store = runner.run(SQLiteStore.open(folder / "data"))
    yield store
    runner.run(store.close())


class Reader(HTMLParser):
    """Elements with their attributes, and the text of each kind of element."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.inside: list[str] = []
        self.feed(answer.body.decode())
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.setdefault(self.inside[-1] if self.inside else "", []).append(data)

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def whole(answer: Answer) -> str:
    return " ".join(text for texts in Reader(answer).text.values() for text in texts)


# --- what is shown ----------------------------------------------------------------------------


def test_what_waits_is_shown_with_two_buttons(world):
    world.waits()
    answer = world.ask("GET")
    page = Reader(answer)
    assert answer.status == 200
    assert page.text["h1"] == ["notice: is it good?"]
    assert page.text["pre"] == ["the notice"]
    assert page.all("form") == [{"method": "post"}], "to the page's own URL"
    assert [(one["name"], one["value"]) for one in page.all("button")] == [
        ("decision", "approve"),
        ("decision", "reject"),
    ]
    [words] = page.all("textarea")
    assert words["name"] == "feedback"
    [label] = page.all("label")
    assert label["for"] == words["id"]


def test_hostile_texts_are_shown_as_they_are_and_never_run(world):
    world.waits(output=HOSTILE, agent=HOSTILE, task_id=HOSTILE)
    page = Reader(world.ask("GET"))
    assert page.text["pre"] == [HOSTILE]
    assert page.text["h1"] == [f"{HOSTILE}: is it good?"]
    assert not page.tags() & {"script", "img", "link", "iframe"}
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    page = Reader(world.decide("approve", HOSTILE))
    assert page.text["pre"] == [HOSTILE, HOSTILE]
    assert not page.tags() & {"script", "img", "link", "iframe", "form"}


def test_it_runs_nothing_is_framed_nowhere_and_is_kept_nowhere(world):
    world.waits()
    for answer in (world.ask("GET"), world.ask("GET", "x"), world.decide("reject"), world.decide("approve")):
        policy = dict(
            part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "script-src" not in policy
        assert re.fullmatch(r"'sha256-[\w+/=]+'", policy["style-src"])
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-robots-tag"] == "noindex"
        assert b"evil.example" not in answer.body, "the Host header is nowhere"


def test_a_long_output_is_cut_and_said_to_be(world):
    world.waits(output="x" * 200_001)
    [shown] = Reader(world.ask("GET")).text["pre"]
    assert shown.startswith("x" * 200_000 + "\n")
    assert shown.endswith("[200001 characters in all]")


def test_an_empty_output_is_said_to_be(world):
    world.waits(output="")
    page = Reader(world.ask("GET"))
    assert "pre" not in page.tags()
    assert page.text["em"] == ["It made an empty text."]


@pytest.mark.parametrize(
    ("default", "told"),
    [("approve", "it counts as approved"), ("reject", "it is done again"), ("fail", "the run fails")],
)
def test_the_deadline_is_told_with_what_comes_then(world, default, told):
    world.waits(expires_at=world.clock.now() + HOUR, default=Default(default))
    assert told in whole(world.ask("GET"))


# --- what decides -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_to_look_decides_nothing(world, method):
    world.waits()
    before = world.review()
    answer = world.ask(method)
    assert answer.status == 200
    assert world.review() == before
    assert world.state() is RunState.WAITING


def test_an_approval_is_recorded_as_what_came_by_the_link(world):
    world.waits()
    answer = world.decide("approve", " good\r\nvery ")
    assert answer.status == 200
    assert Reader(answer).text["h1"] == ["notice: approved"]
    found = world.review()
    assert (found.state, found.decision, found.feedback) == (
        ReviewState.DECIDED,
        Choice.APPROVE,
        "good\nvery",
    )
    assert (found.decided_how, found.decided_by) == (How.LINK, "the review link")
    assert world.state() is RunState.QUEUED


def test_a_rejection_needs_a_word(world):
    world.waits()
    for feedback in ("", "  \r\n "):
        answer = world.decide("reject", feedback)
        assert answer.status == 422
        assert "Nothing was decided" in whole(answer)
        assert "form" in Reader(answer).tags(), "it asks again"
    assert world.state() is RunState.WAITING
    assert world.decide("reject", "shorter").status == 200
    assert world.review().decision is Choice.REJECT


@pytest.mark.parametrize("form", [{}, {"decision": "maybe"}, b"\xff\xfe", {"feedback": "good"}])
def test_a_form_without_a_decision_decides_nothing(world, form):
    world.waits()
    assert world.ask("POST", None, form).status == 422
    assert world.state() is RunState.WAITING


def test_a_link_decides_once(world):
    world.waits()
    assert world.decide("approve", "good").status == 200
    decided = world.review()
    again = world.decide("approve", "good")
    assert (again.status, "not taken" in whole(again)) == (200, False), "the same again"
    for decision, feedback in (("reject", "shorter"), ("approve", "other words")):
        answer = world.decide(decision, feedback)
        assert answer.status == 409
        assert "Your decision was not taken" in whole(answer)
        assert Reader(answer).text["h1"] == ["notice: approved"]
        assert "form" not in Reader(answer).tags()
    assert world.review() == decided


def test_after_its_deadline_it_decides_nothing(world):
    world.waits(expires_at=world.clock.now() + HOUR, default=Default.APPROVE)
    world.clock.advance(HOUR)
    assert "form" not in Reader(world.ask("GET")).tags()
    assert world.decide("reject", "shorter").status == 409
    assert world.review().state is ReviewState.PENDING, "its default is for the server to decide"


def test_of_a_run_that_has_ended_it_tells_so(world):
    world.waits()
    before = world.runner.run(world.store.run(RUN))
    after = runs.end(before, RunState.CANCELLED, world.clock.now(), error="stopped by ann")
    assert world.runner.run(world.store.conclude(before, after, []))
    answer = world.ask("GET")
    assert Reader(answer).text["h1"] == ["notice: no decision is awaited any more"]
    assert "form" not in Reader(answer).tags()
    assert world.decide("approve").status == 409


# --- links ------------------------------------------------------------------------------------


def wrong_tokens() -> list[str]:
    token = LINKS.token(RUN, 1)
    other = ReviewLinks(b"x" * 32, None).token(RUN, 1)
    return ["x", token[:-1], token + "A", "B" + token[1:], other, LINKS.token(RUN, 2), LINKS.token(OTHER, 1)]


@pytest.mark.parametrize("token", wrong_tokens())
def test_another_link_leads_to_no_review(world, token):
    world.waits()
    for answer in (world.ask("GET", token), world.ask("POST", token, {"decision": "approve"})):
        assert answer.status == 404
        assert b"the notice" not in answer.body
        assert Reader(answer).text["h1"] == ["There is no review here"]
    assert world.state() is RunState.WAITING
