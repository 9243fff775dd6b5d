"""A person in the loop, over HTTP: runs that wait, decisions in every way, and what comes of them."""

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
from contextlib import closing

import pytest

from tests.support.mill import ASKING, TASKS, Sack, desk, wait_for_state, wait_until
from tests.support.processes import alive
from tests.support.receiver import Receiver, check_lanes, check_payload, first_deliveries
from tests.support.server import ServerProcess

PUBLIC = "https://crews.example.com/below"
FEEDBACK = "Finer, please: twice through the millstone."


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`desk` asks about its second task, `gate` about its first and its last."""
    folder = tmp_path_factory.mktemp("reviews")
    crews = [
        desk(folder),
        desk(folder, "clean_task,pack_task", "gate"),
        desk(folder, name="stall", in_place=True),
    ]
    with ServerProcess(
        crews, folder / "data", "--public-url", PUBLIC, "--max-runs", "3", "--retry-schedule", "2"
    ) as process:
        for name in ("desk", "gate", "stall"):
            assert process.ask("GET", f"/crews/{name}/inputs", timeout=60).status == 200
        yield process


@pytest.fixture
def sack(tmp_path):
    return lambda name="sack", **script: Sack(tmp_path / name, **script)


def start(server, sack, crew="desk", **fields):
    return server.kickoff(sack.inputs, at=f"/crews/{crew}", **fields)


def paused(server, sack, crew="desk", **fields):
    """A run that waits for its first review."""
    kickoff_id = start(server, sack, crew, **fields)
    wait_for_review(server, kickoff_id, 1)
    return kickoff_id


def wait_for_review(server, kickoff_id, number):
    wait_until(lambda: server.status(kickoff_id).get("awaiting", {}).get("review") == number)


def decide(server, kickoff_id, *, approve=True, feedback="", task=ASKING, by=None, **fields):
    body = {"execution_id": kickoff_id, "task_id": task, "human_feedback": feedback, "is_approve": approve}
    return server.ask("POST", "/resume", body | fields, crewcast_actor=by)


def reviews(server, kickoff_id, state="all"):
    return server.ask("GET", f"/api/v1/reviews?state={state}&kickoff_id={kickoff_id}").json["reviews"]


def post_form(server, path, **fields):
    body = urllib.parse.urlencode(fields).encode()
    return server.ask(
        "POST", path, body, authorization=None, content_type="application/x-www-form-urlencoded"
    )


def path_of(link):
    """Where a link leads on the server itself: what stands before it hands on the rest."""
    assert link.startswith(f"{PUBLIC}/reviews/")
    return link.removeprefix(PUBLIC)


def secret_of(server, url):
    command = [sys.executable, "-m", "crewcast", "secret", "show", "--data-dir", str(server.data), "--origin", url]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_run_waits_survives_a_kill_and_goes_on_by_the_link(tmp_path, sack):
    one, other = sack(), sack("other")
    project = desk(tmp_path)
    with Receiver() as receiver:
        with ServerProcess(project, tmp_path / "data", "--public-url", PUBLIC) as server:
            human = {
                "url": f"{receiver.url}/human_input",
                "authentication": {"strategy": "bearer", "token": "reviewers-token-77"},
            }
            kickoff_id = start(
                server, one, humanInputWebhook=human, meta={"requestId": "r-1"}, **receiver.urls()
            )
            second = start(server, other)
            for each in (kickoff_id, second):
                status = wait_for_state(server, each, "PAUSED", within=60)
            status = server.status(kickoff_id)
            assert status["status"] == "awaiting_human_feedback"
            waits = {"task_id": ASKING, "output": "grind_task 1", "review": 1}
            assert {name: status["awaiting"][name] for name in waits} == waits
            assert status["progress"] == {"completed_tasks": 1, "total_tasks": 3}
            log = server.events(kickoff_id)
            assert [event["type"] for event in log][-2:] == [
                "task.awaiting_human_feedback",
                "human_input.requested",
            ]
            got = receiver.wait(lambda got: len({one.event_id for one in got}) == len(log))
            secret = secret_of(server, receiver.url)
            told = {(one.path, one.headers["crewcast-event"]): one for one in got}
            waiting = check_payload(told["/task", "task.awaiting_human_feedback"], secret).payload
            assert (waiting["task_id"], waiting["output"]) == (ASKING, "grind_task 1")
            asked = told["/human_input", "human_input.requested"]
            payload = check_payload(asked, secret).payload
            assert asked.headers["authorization"] == "Bearer reviewers-token-77"
            assert [one.path for one in got if "authorization" in one.headers] == ["/human_input"]
            link = payload.pop("review_url")
            assert payload == {
                "kickoff_id": kickoff_id,
                "execution_id": kickoff_id,
                "task_id": ASKING,
                "agent": "Miller",
                "task_output": "grind_task 1",
                "meta": {"requestId": "r-1"},
            }
            [listed] = reviews(server, kickoff_id, "pending")
            assert listed["review_url"] == link
            # Nothing of the run is left in memory but its row: its process is gone.
            wait_until(lambda: not alive(one.worker))
            port = server.url.rsplit(":", 1)[1]
            server.kill()
            outputs = server.text

        # Somebody decides while the server is away, and asks until it answers.
        answers = []
        client = threading.Thread(target=lambda: answers.append(persistently(server, second)))
        client.start()
        with ServerProcess(project, tmp_path / "data", "--public-url", PUBLIC, "--port", port) as server:
            client.join(60)
            assert (answers[0].status, answers[0].json["status"]) == (200, "resumed")
            assert server.status(kickoff_id)["state"] == "PAUSED"
            for _ in range(2):
                page = server.ask("GET", path_of(link), authorization=None, content_type=None)
                assert page.status == 200
                assert b"grind_task 1" in page.body
            [listed] = reviews(server, kickoff_id)
            assert listed["state"] == "pending", "who follows a link decides nothing"
            assert post_form(server, path_of(link), decision="approve").status == 200
            status = server.wait_for(kickoff_id)
            assert status["state"] == "SUCCESS"
            assert [task["task_id"] for task in status["result"]["tasks"]] == TASKS
            assert server.wait_for(second)["state"] == "SUCCESS"
            for each in (one, other):
                assert each.counts == dict.fromkeys(TASKS, 1)
                assert each.callbacks == TASKS
            log = server.events(kickoff_id)
            assert [
                event["type"] for event in log if event["channel"] in ("task", "crew", "human_input")
            ] == [
                "task.completed",
                "task.awaiting_human_feedback",
                "human_input.requested",
                "task.completed",
                "task.completed",
                "crew.completed",
            ]
            assert {event["run_attempt"] for event in log} == {1}, (
                "to go on after a decision is no new attempt"
            )
            [listed] = reviews(server, kickoff_id)
            assert (listed["decision"], listed["decided_how"]) == ("approve", "link")
            got = receiver.wait(lambda got: len({one.event_id for one in got}) == len(log))
            check_lanes(got)
            for one in first_deliveries(got):
                check_payload(one, secret)
            assert "review_url" not in listed
            # The link is in the notification and in the reviewers' list, and nowhere else.
            token = link.rsplit("/", 1)[1]
            outputs += server.text
            for place in (
                f"/status/{kickoff_id}",
                f"/api/v1/runs/{kickoff_id}/events?limit=1000",
                f"/api/v1/runs/{kickoff_id}/logs",
                f"/api/v1/runs/{kickoff_id}/deliveries",
                "/api/v1/undelivered",
                "/api/v1/origins",
                *(f"/api/v1/runs/{kickoff_id}/events/{event['seq']}" for event in log),
            ):
                answer = server.ask("GET", place)
                assert answer.status == 200, place
                assert token not in answer.body.decode(), place
            stream = server.ask("GET", f"/api/v1/runs/{kickoff_id}/events", accept="text/event-stream")
            assert b"human_input.requested" in stream.body
            assert token not in stream.body.decode()
            assert token not in outputs
            assert "reviewers-token-77" not in outputs


def persistently(server, kickoff_id):
    """As a client does that is told to try again."""
    while True:
        try:
            return decide(server, kickoff_id)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)


def test_what_is_rejected_is_done_again_until_somebody_approves(server, sack):
    one = sack()
    kickoff_id = paused(server, one)
    links = [reviews(server, kickoff_id)[0]["review_url"]]
    for number, feedback in ((1, "Too coarse."), (2, "Too fine.")):
        answer = decide(server, kickoff_id, approve=False, feedback=feedback, by="Ada")
        assert (answer.status, answer.json["status"], answer.json["review"]) == (200, "retrying", number)
        wait_for_review(server, kickoff_id, number + 1)
        links.append(reviews(server, kickoff_id, "pending")[0]["review_url"])
    assert len(set(links)) == 3
    assert server.status(kickoff_id)["awaiting"]["output"] == "grind_task 3"
    # The link of a review that was decided decides nothing about the next one.
    late = post_form(server, path_of(links[0]), decision="approve")
    assert late.status == 409
    assert decide(server, kickoff_id, feedback="Now it is good.").json["status"] == "resumed"
    status = server.wait_for(kickoff_id)
    assert status["state"] == "SUCCESS"
    assert [task["output"] for task in status["result"]["tasks"]] == [
        "clean_task 1",
        "grind_task 3",
        "pack_task 1",
    ]
    assert one.counts == {"clean_task": 1, "grind_task": 3, "pack_task": 1}
    assert one.callbacks == TASKS
    said = [call["said"] for call in one.noted("calls") if call["task"] == ASKING]
    assert ["Too coarse." in text for text in said] == [False, True, True]
    assert ["Too fine." in text for text in said] == [False, False, True]
    story = [
        (review["review"], review["decision"], review["decided_by"]) for review in reviews(server, kickoff_id)
    ]
    assert story == [(1, "reject", "Ada"), (2, "reject", "Ada"), (3, "approve", "the API")]
    # Earlier decisions can be told apart and repeated by their numbers.
    again = decide(server, kickoff_id, approve=False, feedback="Too coarse.", review=1)
    assert (again.status, again.json["status"], again.json["review"]) == (200, "retrying", 1)
    assert one.counts["grind_task"] == 3


def test_the_same_decision_again_is_answered_again_and_another_is_refused(server, sack):
    one = sack(pack_task=["wait"])
    kickoff_id = paused(server, one)
    first = decide(server, kickoff_id, feedback="Good.", by="Ada")
    for _ in range(2):
        again = decide(server, kickoff_id, feedback="Good.", by="Bob")
        assert (again.status, again.body) == (200, first.body)
        for approve, feedback in ((False, "No."), (True, "Another word.")):
            other = decide(server, kickoff_id, approve=approve, feedback=feedback)
            assert other.status == 400
            assert other.json["message"] == (
                f"Execution is not in pending human input state: task {ASKING} was already approved by Ada"
            )
            assert other.json["details"]["decision"] == "approve"
        one.go()
        server.wait_for(kickoff_id)
    assert one.counts == dict.fromkeys(TASKS, 1)


def test_of_two_that_decide_at_once_one_holds(server, sack):
    for n in range(5):
        one = sack(f"sack{n}")
        kickoff_id = paused(server, one)
        together, answers = threading.Barrier(2), {}

        def ask(approve, kickoff_id=kickoff_id, together=together, answers=answers):
            together.wait()
            answers[approve] = decide(server, kickoff_id, approve=approve, feedback=FEEDBACK, review=1)

        threads = [threading.Thread(target=ask, args=[approve]) for approve in (True, False)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status for answer in answers.values()) == [200, 400]
        approved = answers[True].status == 200
        word = "approved" if approved else "rejected"
        assert f"was already {word}" in answers[not approved].json["message"]
        if not approved:
            wait_for_review(server, kickoff_id, 2)
            assert decide(server, kickoff_id).status == 200
        assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
        assert one.counts["grind_task"] == (1 if approved else 2)


def uuid_of(server, kickoff_id):
    with closing(sqlite3.connect(f"file:{server.data}/crewcast.db?mode=ro", uri=True)) as db:
        return db.execute(
            "SELECT review.uuid FROM review JOIN run ON run.key = review.run WHERE run.id = ?", [kickoff_id]
        ).fetchone()[0]


@pytest.mark.parametrize("name", ["name", "index", "text", "uuid", "camel", "kickoff"])
def test_a_task_is_named_in_each_way_that_amp_has(server, sack, name):
    kickoff_id = paused(server, sack())
    body = {"execution_id": kickoff_id, "task_id": ASKING, "human_feedback": "", "is_approve": True}
    if name == "index":
        body["task_id"] = 2
    elif name == "text":
        body["task_id"] = "2"
    elif name == "uuid":
        body["task_id"] = uuid_of(server, kickoff_id)
    elif name == "camel":
        body = {"executionId": kickoff_id, "taskId": ASKING, "humanFeedback": "", "isApprove": True}
    elif name == "kickoff":
        body["kickoff_id"] = body.pop("execution_id")
    answer = server.ask("POST", "/crews/desk/resume" if name == "name" else "/resume", body)
    assert (answer.status, answer.json["status"]) == (200, "resumed")
    assert answer.json["kickoff_id"] == answer.json["execution_id"] == kickoff_id
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"


def test_what_is_not_asked_cannot_be_decided(server, sack):
    one = sack()
    kickoff_id = paused(server, one)
    wrong = decide(server, kickoff_id, task="pack_task")
    assert wrong.status == 400
    assert wrong.json["message"] == (
        "Execution is not in pending human input state for task 'pack_task'; the task that waits is 'grind_task'"
    )
    assert decide(server, kickoff_id, review=2).status == 400
    assert decide(server, "01a20fca-0000-7000-8000-000000000000").status == 404
    assert decide(server, kickoff_id, is_approve="yes").status == 422
    assert decide(server, kickoff_id, human_feedback=None).status == 422
    body = {"execution_id": kickoff_id, "task_id": ASKING, "human_feedback": "", "is_approve": True}
    assert server.ask("POST", "/resume", body, authorization=None).status == 401
    assert server.ask("POST", "/crews/gate/resume", body).status == 404
    token = path_of(reviews(server, kickoff_id)[0]["review_url"])
    changed = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert post_form(server, changed, decision="approve").status == 404
    assert post_form(server, token, decision="maybe").status == 422
    assert post_form(server, token, decision="reject", feedback=" ").status == 422
    assert [review["state"] for review in reviews(server, kickoff_id)] == ["pending"]
    assert decide(server, kickoff_id).status == 200
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    ended = decide(server, kickoff_id, approve=False, feedback="No.")
    assert (ended.status, ended.json["details"]["decision"]) == (400, "approve")
    running = sack("running", clean_task=["wait"])
    early = start(server, running)
    running.wait_for("clean_task")
    assert decide(server, early).status == 400
    running.go()


def test_several_tasks_of_a_crew_ask_one_after_the_other(server, sack):
    one = sack()
    kickoff_id = paused(server, one, "gate")
    assert decide(server, kickoff_id, task="clean_task").status == 200
    wait_for_review(server, kickoff_id, 2)
    assert server.status(kickoff_id)["awaiting"]["task_id"] == "pack_task"
    # The client of the first repeats its request while the second is asked about.
    assert decide(server, kickoff_id, task="clean_task").json["review"] == 1
    assert decide(server, kickoff_id, task="pack_task").status == 200
    status = server.wait_for(kickoff_id)
    assert [task["task_id"] for task in status["result"]["tasks"]] == TASKS
    assert one.counts == dict.fromkeys(TASKS, 1)
    assert [event["channel"] for event in server.events(kickoff_id)].count("crew") == 1


def test_runs_that_wait_take_no_place_from_others(server, sack):
    """Three run at once; six wait."""
    sacks = [sack(f"sack{n}") for n in range(6)]
    waiting = [start(server, one) for one in sacks]
    for kickoff_id in waiting:
        wait_for_review(server, kickoff_id, 1)
    for kickoff_id in waiting:
        assert decide(server, kickoff_id).status == 200
    assert [server.wait_for(kickoff_id)["state"] for kickoff_id in waiting] == ["SUCCESS"] * 6


@pytest.mark.parametrize(
    ("fields", "given", "reaches"),
    [({}, {}, True), ({"review": {"pass_feedback": False}}, {}, False)],
)
def test_what_is_said_with_an_approval_reaches_later_tasks_unless_it_is_turned_off(
    server, sack, fields, given, reaches
):
    one = sack()
    kickoff_id = paused(server, one, **fields)
    assert decide(server, kickoff_id, feedback=FEEDBACK, **given).status == 200
    status = server.wait_for(kickoff_id)
    [said] = [call["said"] for call in one.noted("calls") if call["task"] == "pack_task"]
    assert (FEEDBACK in said) is reaches
    assert status["result"]["tasks"][1]["output"] == "grind_task 1", (
        "an approval never changes what it approves"
    )


def test_a_crash_after_an_approval_asks_nobody_again(server, sack):
    one = sack(pack_task=["kill"])
    kickoff_id = paused(server, one)
    assert decide(server, kickoff_id).status == 200
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    assert one.counts == {"clean_task": 1, "grind_task": 1, "pack_task": 2}
    assert len(reviews(server, kickoff_id)) == 1
    assert server.events(kickoff_id)[-1]["run_attempt"] == 2


def test_a_run_goes_on_once_the_process_that_asked_is_gone(server, sack):
    """It may still write what it has, to the same storage; and a stop means the new one."""
    one = sack(grind_task=["linger"], pack_task=["wait"])
    kickoff_id = paused(server, one)
    assert decide(server, kickoff_id).status == 200
    one.wait_for("pack_task")
    [flushed] = [effect["at"] for effect in one.noted("effects") if "flushed" in effect]
    assert flushed < one.noted("calls")[-1]["at"]
    assert server.ask("POST", f"/stop/{kickoff_id}").status == 202
    server.wait_until_said(f"run {kickoff_id} is to stop")
    one.go()
    assert wait_for_state(server, kickoff_id, "REVOKED", "SUCCESS")["state"] == "REVOKED"
    assert one.counts == dict.fromkeys(TASKS, 1)


# -- where the events go from a decision on


def lanes_of(requests):
    """What each URL got, in the order of first deliveries: (event, run-seq)."""
    found = {}
    for one in first_deliveries(requests):
        found.setdefault(one.path, []).append((one.headers["crewcast-event"], one.seq))
    return found


def finish(server, receiver, kickoff_id):
    """The log of a run that ended, once all that is to be delivered is."""
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    server.wait_until_delivered(kickoff_id)
    check_lanes(receiver.requests)
    log = server.events(kickoff_id)
    return {
        channel: [(event["type"], event["seq"]) for event in log if event["channel"] == channel]
        for channel in ("task", "step", "crew", "human_input")
    }


def cut(events, at):
    """What was told up to the pause, and after it."""
    return [one for one in events if one[1] <= at], [one for one in events if one[1] > at]


def test_urls_are_carried_over_by_default(server, sack):
    with Receiver() as receiver:
        kickoff_id = paused(server, sack(), **receiver.urls())
        assert decide(server, kickoff_id).status == 200
        log = finish(server, receiver, kickoff_id)
        got = lanes_of(receiver.requests)
        assert got == {f"/{channel}": log[channel] for channel in ("task", "step", "crew")}


def test_a_url_that_is_given_takes_over_and_null_ends_one(server, sack):
    """What was told before stays with the URL of then, though it is away; nothing is lost and nothing told twice."""
    with Receiver() as receiver:
        receiver.answer = lambda request, n: 503 if request.path == "/old/task" else 204
        kickoff_id = paused(server, sack(), ordering="lane", **receiver.urls("/old"))
        at = server.events(kickoff_id)[-1]["seq"]
        receiver.wait(lambda got: any(one.path == "/old/task" for one in got))
        answer = decide(
            server,
            kickoff_id,
            taskWebhookUrl=f"{receiver.url}/new/task",
            stepWebhookUrl=None,
            crewWebhookUrl=f"{receiver.url}/old/crew",
        )
        assert answer.status == 200
        server.wait_for(kickoff_id)
        receiver.answer = lambda request, n: 204
        log = finish(server, receiver, kickoff_id)
        got = lanes_of(receiver.requests)
        before, after = cut(log["task"], at)
        assert (got["/old/task"], got["/new/task"]) == (before, after)
        assert len(before) == 2
        assert len(after) == 2
        before, after = cut(log["step"], at)
        assert got["/old/step"] == before
        assert after, "there was something that the ended URL did not get"
        assert got["/old/crew"] == log["crew"]


def test_a_url_may_hear_another_channel_from_now_on_and_come_back(server, sack):
    with Receiver() as receiver:
        a, b = f"{receiver.url}/a/task", f"{receiver.url}/b/task"
        kickoff_id = paused(server, sack(), "gate", taskWebhookUrl=a)
        first = server.events(kickoff_id)[-1]["seq"]
        assert decide(server, kickoff_id, task="clean_task", taskWebhookUrl=b).status == 200
        wait_for_review(server, kickoff_id, 2)
        second = server.events(kickoff_id)[-1]["seq"]
        assert decide(server, kickoff_id, task="pack_task", taskWebhookUrl=a).status == 200
        log = finish(server, receiver, kickoff_id)
        got = lanes_of(receiver.requests)
        assert got["/a/task"] == [one for one in log["task"] if not first < one[1] <= second]
        assert got["/b/task"] == [one for one in log["task"] if first < one[1] <= second]
        assert got["/b/task"]


# -- deadlines


def test_a_deadline_approves_if_that_was_agreed_and_reminds_before(server, sack):
    one = sack()
    with Receiver() as receiver:
        basic = {"strategy": "basic", "username": "ada", "password": "lovelace-1815"}
        kickoff_id = start(
            server,
            one,
            humanInputWebhook={"url": f"{receiver.url}/human_input", "authentication": basic},
            review={"timeout": 5, "default": "approve", "remind_every": 1},
        )
        waiting = wait_for_state(server, kickoff_id, "PAUSED")
        [asked] = reviews(server, kickoff_id)
        assert asked["default"] == "approve"
        assert asked["expires_at"] == waiting["awaiting"]["expires_at"]
        status = server.wait_for(kickoff_id)
        assert status["state"] == "SUCCESS"
        [review] = reviews(server, kickoff_id)
        assert (review["decision"], review["decided_by"], review["decided_how"]) == (
            "approve",
            "deadline",
            "deadline",
        )
        # After 1, 2, 3 and 4 seconds; those that a busy machine missed are not made up for.
        assert 1 <= review["reminders"] <= 4
        told = [event["type"] for event in server.events(kickoff_id) if event["channel"] == "human_input"]
        assert told == ["human_input.requested"] + ["human_input.reminder"] * review["reminders"]
        got = first_deliveries(receiver.wait(lambda got: len({one.event_id for one in got}) == len(told)))
        assert [one.headers["crewcast-event"] for one in got] == told
        links = {json.loads(one.body)["review_url"] for one in got}
        assert len(links) == 1
        credentials = base64.b64encode(b"ada:lovelace-1815").decode()
        assert {one.headers["authorization"] for one in got} == {f"Basic {credentials}"}
        late = decide(server, kickoff_id, approve=False, feedback="No.")
        assert late.status == 400
        assert late.json["message"].endswith("was already approved by deadline")
        page = post_form(server, path_of(links.pop()), decision="reject", feedback="No.")
        assert page.status == 409
        assert one.counts == dict.fromkeys(TASKS, 1)


def test_a_deadline_rejects_if_that_was_agreed(server, sack):
    one = sack(grind_task=["say", "wait"])
    kickoff_id = start(server, one, review={"timeout": 5, "default": "reject"})
    one.wait_for("grind_task", 2)
    [review] = reviews(server, kickoff_id)
    assert (review["decision"], review["decided_how"]) == ("reject", "deadline")
    one.go()
    wait_for_review(server, kickoff_id, 2)
    assert decide(server, kickoff_id).status == 200
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"


def test_a_deadline_without_a_default_fails_the_run_with_what_it_had_finished(server, sack):
    one = sack()
    with Receiver() as receiver:
        human = {"url": f"{receiver.url}/human_input"}
        kickoff_id = start(server, one, humanInputWebhook=human, review={"timeout": "1s"})
        status = server.wait_for(kickoff_id)
        link = json.loads(receiver.wait(lambda got: got != [])[0].body)["review_url"]
    assert status["state"] == "FAILED"
    # A second, or what it was when a busy server looked.
    assert re.fullmatch(rf"nobody decided about task {ASKING} within [1-9]\d*s", status["error"])
    [crew] = [event for event in server.events(kickoff_id) if event["channel"] == "crew"]
    assert [task["task_id"] for task in crew["payload"]["result"]["tasks"]] == ["clean_task"]
    [review] = reviews(server, kickoff_id)
    assert (review["state"], review["decided_how"]) == ("void", "deadline")
    assert decide(server, kickoff_id).status == 400
    assert post_form(server, path_of(link), decision="approve").status == 409
    assert one.counts == {"clean_task": 1, "grind_task": 1}


# -- crews whose task no other process could go on with


def test_a_child_waits_in_place_where_it_must(server, sack):
    server.wait_until_said("holds a process while it waits for a person")
    one = sack()
    kickoff_id = paused(server, one, "stall")
    assert server.status(kickoff_id)["state"] == "PAUSED"
    assert alive(one.worker)
    assert decide(server, kickoff_id, approve=False, feedback="Finer.").json["status"] == "retrying"
    wait_for_review(server, kickoff_id, 2)
    assert decide(server, kickoff_id, feedback=FEEDBACK).json["status"] == "resumed"
    status = server.wait_for(kickoff_id)
    assert status["state"] == "SUCCESS"
    assert one.counts == {"clean_task": 1, "grind_task": 2, "pack_task": 2}
    assert one.callbacks == [*TASKS, "pack_task"]
    assert len({call["pid"] for call in one.noted("calls")}) == 1
    log = server.events(kickoff_id)
    assert [event["channel"] for event in log].count("crew") == 1
    assert {event["run_attempt"] for event in log} == {1}


def test_a_run_that_waits_in_place_is_stopped_with_its_child(server, sack):
    one = sack()
    kickoff_id = paused(server, one, "stall")
    assert server.ask("POST", f"/stop/{kickoff_id}").json["status"] == "stopping"
    assert server.wait_for(kickoff_id)["state"] == "REVOKED"
    wait_until(lambda: not alive(one.worker))
    assert one.counts == {"clean_task": 1, "grind_task": 1}


def test_a_run_whose_child_died_while_it_waited_in_place_fails_rather_than_begin_anew(server, sack):
    one = sack()
    kickoff_id = paused(server, one, "stall")
    os.kill(one.worker, signal.SIGKILL)
    status = server.wait_for(kickoff_id)
    assert decide(server, kickoff_id).status == 400
    assert status["error"].endswith(
        "; the run cannot go on: what its tasks made could not be kept, so they would be done again"
    )
    assert one.counts == {"clean_task": 1, "grind_task": 1}
    [crew] = [event for event in server.events(kickoff_id) if event["channel"] == "crew"]
    assert crew["type"] == "crew.error"


def test_a_crash_of_a_crew_that_cannot_go_on_is_the_end(server, sack):
    one = sack(grind_task=["exit"])
    status = server.wait_for(start(server, one, "stall"))
    assert status["error"] == (
        "the crew's process ended by itself (exit status 3); the run cannot go on: "
        "what its tasks made could not be kept, so they would be done again"
    )
    first = sack("first", clean_task=["exit"])
    assert start(server, first, "stall")
    first.wait_for("clean_task", 2)
