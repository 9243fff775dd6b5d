"""What is not delivered is found and sent again, as a person does it: over the API and with the commands."""

import re
import subprocess
import sys
import time

import pytest

from tests.support.receiver import Receiver, check_lanes
from tests.support.server import REPOSITORY, TOKEN, ServerProcess

ODD = REPOSITORY / "tests" / "projects" / "odd"
AGAIN = "/api/v1/redeliveries"
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    flags = ("--stub-llm", "--retry-schedule", "0.05", "--max-runs", "4")
    with ServerProcess(ODD, tmp_path_factory.mktemp("data"), *flags) as server:
        server.wait_until_ready()
        yield server


class Refusing(Receiver):
    """Wants no task events at first: their lanes are closed, and each of them is a dead letter."""

    def __init__(self) -> None:
        super().__init__(lambda request, _: 410 if request.path.endswith("/task") else 204)

    def mend(self) -> None:
        self.answer = lambda *_: 204

    def replays(self) -> list:
        return [one for one in self.requests if one.headers.get("crewcast-replay") == "true"]


@pytest.fixture
def refusing():
    with Refusing() as receiver:
        yield receiver


def until(condition, within=30):
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def undelivered(server, query=""):
    return server.ask("GET", f"/api/v1/undelivered?{query}").json["dead_letters"]


def refused_run(server, **fields) -> str:
    """A run of two tasks that has ended, and whose two task events are dead letters."""
    kickoff_id = server.kickoff({"topic": "tea"}, **fields)
    assert server.wait_for(kickoff_id)["state"] == "SUCCESS"
    until(lambda: len(undelivered(server, f"kickoff_id={kickoff_id}")) == 2)
    return kickoff_id


def again(server, body):
    answer = server.ask("POST", AGAIN, body)
    assert answer.status == 200, answer.body
    return answer.json


def cli(server, *arguments):
    command = [sys.executable, "-m", "crewcast", *arguments, "--url", server.url, "--token", TOKEN]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_dead_letters_are_told_and_delivered_again_in_their_order(served, refusing):
    kickoff_id = refused_run(served, **refusing.urls("/hook"))
    first, second = undelivered(served, f"kickoff_id={kickoff_id}")
    assert (first["lane"], first["lane_seq"], first["type"]) == (1, 1, "task.completed")
    assert (first["url"], first["reason"]) == (f"{refusing.url}/hook/task", "gone")
    assert (second["lane_seq"], second["number"] > first["number"]) == (2, True)

    refusing.mend()
    asked = {"kickoff_id": kickoff_id, "dead_only": True}
    assert again(served, asked) == {
        "lanes": [{"kickoff_id": kickoff_id, "lane": 4, "replay_of": 1, "events": 2}],
        "next": None,
    }
    refusing.wait(lambda _: len(refusing.replays()) == 2)
    seqs = [(one.seq, int(one.headers["crewcast-lane-seq"])) for one in refusing.replays()]
    assert seqs == [(first["seq"], 1), (second["seq"], 2)]
    ids = {event["seq"]: event["id"] for event in served.events(kickoff_id)}
    assert [one.event_id for one in refusing.replays()] == [ids[first["seq"]], ids[second["seq"]]]

    until(lambda: not undelivered(served, f"kickoff_id={kickoff_id}"))
    assert again(served, asked) == {"lanes": [], "next": None}
    told = served.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json
    assert [(lane["lane"], lane["replay_of"]) for lane in told["lanes"]] == [
        (1, None),
        (2, None),
        (3, None),
        (4, 1),
    ]
    assert [letter["redelivered"] for letter in told["dead_letters"]] == [True, True]


def test_a_whole_run_is_sent_again_lane_by_lane(served, receiver):
    kickoff_id = served.kickoff({"topic": "tea"}, **receiver.urls())
    served.wait_for(kickoff_id)
    before = len(receiver.wait_for_crew_events())
    made = again(served, {"kickoff_id": kickoff_id})["lanes"]
    assert [lane["replay_of"] for lane in made] == [1, 2, 3]
    assert sum(lane["events"] for lane in made) == len(served.events(kickoff_id))
    requests = receiver.wait(lambda got: len(got) == 2 * before)
    check_lanes(requests[:before])
    check_lanes(requests[before:])


def test_another_url_never_gets_the_authentication_of_the_old_one(served, refusing):
    auth = {"strategy": "bearer", "token": "of-the-old-one"}
    kickoff_id = refused_run(served, webhookAuthentication=auth, **refusing.urls())
    assert {one.headers["authorization"] for one in refusing.requests} == {"Bearer of-the-old-one"}
    seq = undelivered(served, f"kickoff_id={kickoff_id}")[0]["seq"]
    with Receiver() as other:
        body = {"kickoff_id": kickoff_id, "lane": 1, "seq": seq, "url": f"{other.url}/task"}
        assert again(served, body)["lanes"][0]["events"] == 1
        [plain] = other.wait(lambda got: len(got) == 1)
        assert (plain.seq, "authorization" in plain.headers) == (seq, False)
        again(served, body | {"authentication": {"strategy": "bearer", "token": "of-the-new-one"}})
        _, shown = other.wait(lambda got: len(got) == 2)
        assert shown.headers["authorization"] == "Bearer of-the-new-one"
        assert shown.event_id == plain.event_id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://10.0.0.1/hook"}, "url"),
        ({"url": "http://169.254.169.254/"}, "url"),
        ({"authentication": {"strategy": "bearer", "token": "t"}}, "authentication"),
        ({"deadonly": True}, "deadonly"),
    ],
)
def test_what_cannot_be_meant_sends_nothing(served, receiver, change, field):
    kickoff_id = served.kickoff({"topic": "tea"}, **receiver.urls())
    served.wait_for(kickoff_id)
    answer = served.ask("POST", AGAIN, {"kickoff_id": kickoff_id} | change)
    assert (answer.status, answer.json["details"]) == (422, {"field": field})
    lanes = served.ask("GET", f"/api/v1/runs/{kickoff_id}/deliveries").json["lanes"]
    assert len(lanes) == 3


def test_an_unknown_run_is_404_and_an_unknown_lane_an_empty_list(served):
    assert served.ask("POST", AGAIN, {"kickoff_id": "nope"}).status == 404
    kickoff_id = served.kickoff({"topic": "tea"})
    assert again(served, {"kickoff_id": kickoff_id, "lane": 7})["lanes"] == []


def test_all_dead_letters_of_an_origin_are_sent_again(served, refusing):
    runs = sorted(refused_run(served, **refusing.urls()) for _ in range(3))
    asked = {"origin": f"{refusing.url}/any/path", "since": LONG_AGO, "dead_only": True}
    assert again(served, asked | {"since": "2100-01-01T00:00:00Z"})["lanes"] == []
    refusing.mend()
    made = again(served, asked)
    assert sorted((lane["kickoff_id"], lane["events"]) for lane in made["lanes"]) == [
        (run, 2) for run in runs
    ]
    refusing.wait(lambda _: len(refusing.replays()) == 6)
    until(lambda: not undelivered(served, f"origin={refusing.url}"))


def test_of_a_lane_only_what_was_given_up_since_is_sent_again(tmp_path):
    flags = ("--stub-llm", "--retry-schedule", "0.2", "--give-up-after", "0.1")
    with Receiver(lambda *_: 503) as receiver, ServerProcess(ODD, tmp_path, *flags) as server:
        kickoff_id = refused_run(server, taskWebhookUrl=f"{receiver.url}/task")
        early, late = undelivered(server, f"kickoff_id={kickoff_id}")
        assert (early["lane"], late["lane"], early["at"] < late["at"]) == (1, 1, True)
        failed = len(receiver.requests)
        receiver.answer = lambda *_: 204
        sent = cli(server, "redeliver", "--origin", receiver.url, "--since", late["at"])
        assert sent.stdout.splitlines()[1:] == [
            f"{kickoff_id}  2     1      1",
            "1 event of 1 lane to be sent again",
        ]
        until(lambda: undelivered(server, f"kickoff_id={kickoff_id}") == [early])
        assert [one.seq for one in receiver.requests[failed:]] == [late["seq"]]


def test_undelivered_is_paged_and_filtered(served, refusing):
    run, other = (refused_run(served, **refusing.urls()) for _ in range(2))
    origin = f"origin={refusing.url}"
    found = undelivered(served, origin)
    assert [letter["kickoff_id"] for letter in found] == [run] * 2 + [other] * 2
    pages, after = [], 0
    while after is not None:
        page = served.ask("GET", f"/api/v1/undelivered?{origin}&limit=3&after={after}").json
        pages.append(page["dead_letters"])
        after = page["next"]
    assert [len(page) for page in pages] == [3, 1]
    assert [letter for page in pages for letter in page] == found
    assert undelivered(served, f"{origin}&since={found[2]['at']}") == [
        letter for letter in found if letter["at"] >= found[2]["at"]
    ]
    for query in ("origin=nobody", "since=yesterday", "limit=many"):
        answer = served.ask("GET", f"/api/v1/undelivered?{query}")
        assert (answer.status, answer.json["details"]) == (422, {"field": query.partition("=")[0]})


def test_an_origin_that_does_not_work_is_told_and_can_be_reset(served):
    with Receiver(lambda *_: 500) as broken:
        kickoff_id = served.kickoff({"topic": "tea"}, **broken.urls())
        served.wait_for(kickoff_id)

        def opened():
            rows = served.ask("GET", "/api/v1/origins").json["origins"]
            return [row for row in rows if row["origin"] == broken.url and row["state"] == "open"]

        [row] = until(opened)
        waiting = len(served.events(kickoff_id))
        assert (row["reason"], row["lanes"], row["events"]) == ("status:500", 3, waiting)
        assert row["failures"] >= 10
        line = next(line for line in cli(served, "origins").stdout.splitlines() if broken.url in line)
        assert re.split(" {2,}", line)[:4] == [broken.url, "open", "3", str(waiting)]

        taken: list[str] = []

        def take(request, _):
            taken.append(request.event_id)
            return 204

        broken.answer = take
        done = cli(served, "origins", "--reset", f"{broken.url}/hook")
        assert (done.returncode, done.stdout.split()[0]) == (0, broken.url)
        broken.wait(lambda _: len(set(taken)) == waiting, within=20)  # it would have waited 24 s and more
        until(
            lambda: (
                not [
                    r
                    for r in served.ask("GET", "/api/v1/origins").json["origins"]
                    if r["origin"] == broken.url
                ]
            )
        )
    assert served.ask("POST", "/api/v1/origins/reset", {"origin": 7}).json["details"] == {"field": "origin"}


def test_a_run_is_deleted_wholly_once_it_has_ended(served, refusing, tmp_path):
    assert served.ask("DELETE", "/api/v1/runs/nope").status == 404
    go_on = tmp_path / "go on"
    inputs = {"topic": "tea", "act": "wait", "argument": str(go_on)}
    kickoff_id = served.kickoff(inputs, **refusing.urls())
    until(lambda: served.status(kickoff_id)["state"] == "STARTED")
    answer = served.ask("DELETE", f"/api/v1/runs/{kickoff_id}")
    assert (answer.status, answer.json["error"]) == (409, "Execution is running")
    go_on.touch()
    assert served.wait_for(kickoff_id)["state"] == "SUCCESS"
    until(lambda: undelivered(served, f"kickoff_id={kickoff_id}"))
    log = served.data / "logs" / f"{kickoff_id}.log"
    assert log.exists()
    answer = served.ask("DELETE", f"/api/v1/runs/{kickoff_id}")
    assert (answer.status, answer.body) == (204, b"")
    assert not log.exists()
    for path in (f"/status/{kickoff_id}", f"/api/v1/runs/{kickoff_id}/events"):
        assert served.ask("GET", path).status == 404
    assert undelivered(served, f"kickoff_id={kickoff_id}") == []
    assert served.ask("DELETE", f"/api/v1/runs/{kickoff_id}").status == 404


def test_the_commands_show_and_send_again_what_was_given_up(served, refusing):
    kickoff_id = refused_run(served, **refusing.urls())
    shown = cli(served, "deliveries", kickoff_id)
    assert shown.returncode == 0, shown.stderr
    lanes, attempts, dead = shown.stdout.split("\n\n")
    assert re.split(" {2,}", lanes.splitlines()[1]) == [
        "1",
        "task",
        "1",
        "closed: gone",
        f"{refusing.url}/task",
    ]
    assert sum("status:410" in line for line in attempts.splitlines()) == 1
    assert [line.split()[3:] for line in dead.splitlines()[1:]] == [
        ["1", "task.completed", "gone"],
        ["2", "task.completed", "gone"],
    ]
    for flags in (["--origin", refusing.url], ["--since", "1h", kickoff_id], ["--undelivered", kickoff_id]):
        listed = cli(served, "deliveries", *flags).stdout.splitlines()
        assert [line.split()[1] for line in listed[1:]] == [kickoff_id] * 2, flags
    assert (
        cli(served, "redeliver", "--origin", refusing.url, "--since", "0s").stdout
        == "nothing to send again\n"
    )

    one = cli(served, "redeliver", kickoff_id, "--lane", "1", "--seq", "999")
    assert (one.returncode, one.stdout) == (0, "nothing to send again\n")
    refusing.mend()
    sent = cli(served, "redeliver", "--origin", refusing.url, "--since", "2h")
    assert sent.stdout.splitlines()[1:] == [
        f"{kickoff_id}  4     1      2",
        "2 events of 1 lane to be sent again",
    ]
    refusing.wait(lambda _: len(refusing.replays()) == 2)
    until(lambda: not undelivered(served, f"kickoff_id={kickoff_id}"))
    with Receiver() as other:
        sent = cli(served, "redeliver", kickoff_id, "--lane", "1", "--to", f"{other.url}/task")
        assert sent.returncode == 0, sent.stderr
        other.wait(lambda got: len(got) == 2)
    assert cli(served, "delete", kickoff_id).stdout == f"{kickoff_id} is deleted\n"
    gone = cli(served, "deliveries", kickoff_id)
    assert (gone.returncode, "There is no execution" in gone.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["redeliver"], "name a run by its ID, or an origin"),
        (["redeliver", "--origin", "https://x.example"], "--origin and --since"),
        (["redeliver", "ID", "--origin", "https://x.example"], "name a run, or --origin"),
        (["redeliver", "--origin", "https://x.example", "--since", "2h", "--lane", "1"], "--lane and --seq"),
        (["redeliver", "nope"], "There is no execution 'nope' here (HTTP 404)"),
        (["deliveries", "--since", "lately"], "--since must be a moment"),
        (["origins", "--reset", "nobody"], "(HTTP 422)"),
        (["delete", "nope"], "There is no execution 'nope' here (HTTP 404)"),
    ],
)
def test_the_commands_say_what_to_correct(served, arguments, said):
    done = cli(served, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
