"""What the commands make of times and pages."""

import json
from types import SimpleNamespace

import pytest

from crewcast.cli import deliveries
from crewcast.core.errors import UsageError

NOON = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", "2026-01-31T10:00:00.000000Z"),
        ("3d", "2026-01-28T12:00:00.000000Z"),
        ("90", "2026-01-31T11:58:30.000000Z"),
        ("2026-01-30T00:00:00+01:00", "2026-01-30T00:00:00+01:00"),
    ],
)
def test_since_is_a_moment_or_how_long_ago(text, moment):
    assert deliveries.since(text, NOON) == moment


@pytest.mark.parametrize("text", ["", "2 hours", "-2h", "yesterday", "2026-01-30", "999999999d"])
def test_another_since_is_told_how_it_is_written(text):
    with pytest.raises(UsageError, match="2h or 3d"):
        deliveries.since(text, NOON)


class Pages:
    """Answers one page after the other, and keeps what it was asked."""

    def __init__(self, *pages):
        self.pages = list(pages)
        self.asked = []

    def ask(self, method, path, body=None):
        self.asked.append((method, path, body))
        return json.dumps(self.pages.pop(0)).encode()


def lane(run, events):
    return {"kickoff_id": run, "lane": 4, "replay_of": 1, "events": events}


def test_a_redelivery_goes_on_until_there_is_no_next_and_shows_how_far_it_is(capsys):
    pages = Pages(
        {"lanes": [lane("a", 2), lane("b", 1)], "next": "2.1"},
        {"lanes": [], "next": "3.1"},
        {"lanes": [lane("c", 4)], "next": None},
    )
    deliveries._all_of_origin(pages, {"origin": "o", "since": "s"})
    assert [body for _, _, body in pages.asked] == [
        {"origin": "o", "since": "s", "dead_only": True, "after": after} for after in (None, "2.1", "3.1")
    ]
    told = capsys.readouterr()
    assert told.err.splitlines() == ["crewcast: 3 events of 2 lanes so far"] * 2
    assert told.out.splitlines()[-1] == "7 events of 3 lanes to be sent again"


def test_what_was_given_up_is_listed_to_its_last_page(capsys):
    letter = {
        "at": "2026-01-31T12:00:00.000000Z", "kickoff_id": "k", "lane": 1, "seq": 2, "lane_seq": 1,
        "type": "step", "reason": "gone", "url": "u",
    }  # fmt: skip
    pages = Pages({"dead_letters": [letter] * 2, "next": 9}, {"dead_letters": [letter], "next": None})
    deliveries._undelivered(
        pages, SimpleNamespace(kickoff_id=None, origin="https://x.example/?a&b", since=None)
    )
    assert [path.rpartition("&")[2] for _, path, _ in pages.asked] == ["after=0", "after=9"]
    assert "origin=https%3A%2F%2Fx.example%2F%3Fa%26b&" in pages.asked[0][1]
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "AT"
    assert len(rows) == 3
    assert {row.index("gone") for row in rows} == {head.index("REASON")}


def test_attempts_are_listed_to_the_last_page(capsys):
    def attempt(number):
        return {
            "id": number, "at": "t", "lane": 1, "seq": number, "attempt": 1, "outcome": f"o{number}",
            "seconds": 0.5, "verdict": "retry",
        }  # fmt: skip

    def told(*numbers):
        return {"lanes": [], "attempts": [attempt(n) for n in numbers], "dead_letters": []}

    pages = Pages(told(1, 2), told(3), told())
    deliveries._of_run(pages, "k")
    assert [path.rpartition("=")[2] for _, path, _ in pages.asked] == ["0", "2", "3"]
    out = capsys.readouterr().out
    assert all(f"o{n}" in out for n in (1, 2, 3))
