"""What a person is shown of reviews, which one a decision means, and who is said to have decided."""

import json

import pytest

from crewcast.cli import reviews
from crewcast.cli.main import parser
from crewcast.core.errors import UsageError

FIRST = {
    "id": 1, "kickoff_id": "run-1", "review": 1, "task_id": "notice", "output": "a\nb", "state": "pending",
    "asked_at": "2026-01-31T12:00:00.000000Z", "reminders": 0, "review_url": "https://x.example/reviews/t1",
}  # fmt: skip
SECOND = FIRST | {
    "id": 2, "kickoff_id": "run-2", "task_id": "letter", "asked_at": "2026-01-31T13:00:00.000000Z",
    "expires_at": "2026-02-01T13:00:00.000000Z", "review_url": "https://x.example/reviews/t2",
}  # fmt: skip
DECIDED = {name: value for name, value in FIRST.items() if name != "review_url"} | {
    "state": "decided", "decision": "reject", "decided_by": "ann\x1b[31m", "decided_how": "cli", "feedback": "no",
}  # fmt: skip


class Server:
    """Has these reviews, takes every decision, and keeps what it was asked."""

    def __init__(self, *found, page=100):
        self.found, self.page = found, page
        self.asked = []

    def ask(self, method, path, body=None, **headers):
        self.asked.append((method, path, body, headers))
        return json.dumps(self.answer(path, body)).encode()

    def answer(self, path, body):
        if path.startswith("/api/v1/reviews"):
            query = dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
            fits = [
                one
                for one in self.found
                if query["state"] in ("all", one["state"])
                and query.get("kickoff_id") in (None, one["kickoff_id"])
                and one["id"] > int(query["after"])
            ]
            told = fits[: self.page]
            return {"reviews": told, "next": told[-1]["id"] if len(fits) > self.page else None}
        if path.startswith("/status"):
            return {"state": "SUCCESS"}
        if path.startswith("/stop"):
            return {"kickoff_id": path.rpartition("/")[2], "message": "The run was stopped"}
        return {"kickoff_id": body["kickoff_id"], "message": "Task x was approved"}


def run(server, monkeypatch, *arguments, login=lambda: "ann"):
    monkeypatch.setattr(reviews, "client_of", lambda args: server)
    return reviews.run(parser().parse_args(arguments), login)


# --- what waits -------------------------------------------------------------------------------


def test_what_waits_is_listed_with_its_link_and_the_newest_question_last(monkeypatch, capsys):
    server = Server(DECIDED, FIRST | {"id": 2}, SECOND | {"id": 3})
    assert run(server, monkeypatch, "reviews") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["ASKED", "AT", "KICKOFF", "ID", "TASK", "UNTIL", "LINK"]
    assert [row.split()[1:3] for row in rows] == [["run-1", "notice"], ["run-2", "letter"]]
    assert [row.split()[-1] for row in rows] == [FIRST["review_url"], SECOND["review_url"]]
    assert [row.split()[-2] for row in rows] == ["-", "2026-02-01T13:00:00.000000Z"]


def test_without_a_public_url_there_are_no_links_and_that_is_said(monkeypatch, capsys):
    run(Server({name: FIRST[name] for name in FIRST if name != "review_url"}), monkeypatch, "reviews")
    assert "no public_url" in capsys.readouterr().out


def test_all_tells_who_decided_what_and_how(monkeypatch, capsys):
    run(Server(DECIDED, SECOND), monkeypatch, "reviews", "--all")
    out = capsys.readouterr().out
    _, decided, waits = out.splitlines()
    assert decided.split()[3:] == ["notice", "rejected", "cli", "ann", "[31m"]
    assert waits.split()[3:] == ["letter", "pending", "-", "-"]
    assert "\x1b" not in out


def test_json_is_all_that_is_known(monkeypatch, capsys):
    server = Server(FIRST, SECOND, page=1)
    run(server, monkeypatch, "reviews", "--json")
    assert json.loads(capsys.readouterr().out) == [FIRST, SECOND]
    assert [path.rpartition("=")[2] for _, path, _, _ in server.asked] == ["0", "1"], "to its last page"


@pytest.mark.parametrize(("flags", "told"), [([], "nothing waits"), (["--all"], "no review yet")])
def test_an_empty_list_is_a_sentence_and_in_json_a_list(flags, told, monkeypatch, capsys):
    run(Server(), monkeypatch, "reviews", *flags)
    assert told in capsys.readouterr().out
    run(Server(), monkeypatch, "reviews", *flags, "--json")
    assert json.loads(capsys.readouterr().out) == []


# --- decisions --------------------------------------------------------------------------------


def decision(server):
    [(body, headers)] = [
        (body, headers)
        for method, path, body, headers in server.asked
        if path == "/resume" and method == "POST"
    ]
    return body, headers


def test_the_only_run_that_waits_needs_no_name(monkeypatch, capsys):
    server = Server(DECIDED, SECOND)
    assert run(server, monkeypatch, "approve", "--feedback", "good") == 0
    body, headers = decision(server)
    assert body == {
        "kickoff_id": "run-2", "task_id": "letter", "review": 1, "is_approve": True, "human_feedback": "good",
    }  # fmt: skip
    assert headers == {"crewcast_client": "cli", "crewcast_actor": "ann"}
    assert capsys.readouterr().out == "run-2: Task x was approved\n"


def test_of_several_one_must_be_named(monkeypatch):
    with pytest.raises(UsageError) as caught:
        run(Server(FIRST, SECOND), monkeypatch, "approve")
    assert str(caught.value).splitlines() == [
        "2 runs wait for a decision; name the one that you mean:",
        "  run-1  notice",
        "  run-2  letter",
    ]


def test_its_task_may_name_it(monkeypatch):
    server = Server(FIRST, SECOND)
    run(server, monkeypatch, "reject", "--task", "letter", "--feedback", "shorter")
    body, _ = decision(server)
    assert (body["kickoff_id"], body["is_approve"], body["human_feedback"]) == ("run-2", False, "shorter")
    with pytest.raises(UsageError, match="nothing waits for a decision about a task 'other'"):
        run(server, monkeypatch, "approve", "--task", "other")


def test_nothing_to_decide_is_said(monkeypatch):
    with pytest.raises(UsageError, match="nothing waits for a decision"):
        run(Server(DECIDED), monkeypatch, "approve")


def test_a_run_that_is_named_is_decided_by_its_newest_review(monkeypatch):
    newer = FIRST | {"id": 3, "review": 2}
    server = Server(DECIDED, SECOND, newer)
    run(server, monkeypatch, "approve", "run-1")
    body, _ = decision(server)
    assert (body["kickoff_id"], body["task_id"], body["review"]) == ("run-1", "notice", 2)


def test_the_newest_review_is_meant_also_if_it_is_decided(monkeypatch):
    """So that a repetition is no error, and another decision is told what was decided."""
    server = Server(DECIDED)
    run(server, monkeypatch, "reject", "run-1", "--feedback", "no")
    body, _ = decision(server)
    assert (body["task_id"], body["review"]) == ("notice", 1)


def test_a_run_that_never_waited_is_told_with_its_state(monkeypatch):
    with pytest.raises(UsageError, match=r"run-9 waits for nobody \(its state is SUCCESS\)"):
        run(Server(FIRST), monkeypatch, "approve", "run-9")


def test_a_task_of_a_run_is_asked_for_as_it_is_named(monkeypatch):
    server = Server(FIRST)
    run(server, monkeypatch, "approve", "run-1", "--task", "2")
    body, _ = decision(server)
    assert (body["task_id"], "review" in body) == ("2", False)


def test_a_rejection_needs_feedback(capsys):
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["reject", "run-1"])
    assert caught.value.code == 2
    assert "--feedback" in capsys.readouterr().err


# --- stopping ---------------------------------------------------------------------------------


def test_a_stop_tells_what_the_server_says(monkeypatch, capsys):
    server = Server()
    assert run(server, monkeypatch, "stop", "a/b") == 0
    [(method, path, body, headers)] = server.asked
    assert (method, path, body) == ("POST", "/stop/a%2Fb", None)
    assert headers["crewcast_actor"] == "ann"
    assert "The run was stopped" in capsys.readouterr().out


# --- who --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sent"),
    [("ann", b"ann"), ("Åse\r\nx-evil: 1\x00", b"\xc3\x85se x-evil: 1"), ("\ud800", b"")],
)
def test_a_name_is_one_line_of_utf_8(name, sent):
    assert reviews.actor(name).encode("latin-1") == sent


def test_another_name_may_be_given(monkeypatch):
    server = Server(FIRST)
    run(server, monkeypatch, "approve", "--as", "Åse")
    assert decision(server)[1]["crewcast_actor"].encode("latin-1").decode() == "Åse"


@pytest.mark.parametrize("error", [OSError, KeyError, ImportError])
def test_a_login_that_nobody_knows_is_left_out(error, monkeypatch):
    def login():
        raise error

    server = Server(FIRST)
    run(server, monkeypatch, "approve", login=login)
    assert decision(server)[1] == {"crewcast_client": "cli"}
