"""What everybody meets at once is said once."""

import logging

import asyncpg
import pytest

from crewcast.core.errors import StoreAway, StoreError, StoreFull
from crewcast.store.postgres.connection import Database
from crewcast.store.postgres.trouble import QUIET, Trouble
from crewcast.store.protocol import level

AWAY = StoreAway("it does not answer.")
FULL = StoreFull("it has no room.")


class Log:
    """A trouble, its clock, and what it has said so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "crewcast.store")
        self._records = caplog.records
        self.now = 0.0
        self.trouble = Trouble("db.example/x", lambda: self.now)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(record.levelname, record.getMessage()) for record in self._records]


BEGAN = ("ERROR", "it does not answer. Meanwhile nothing is accepted; runs and deliveries wait.")
ENDED = ("WARNING", "PostgreSQL at db.example/x answers again: what waited goes on")


def test_an_outage_is_said_once_at_its_beginning_and_once_at_its_end(caplog):
    log = Log(caplog)
    for _ in range(50):
        log.trouble.meet(AWAY)
        log.now += 0.1
    assert log.said == [BEGAN]
    for _ in range(50):
        log.now += QUIET
        log.trouble.answered(wrote=False)
    assert log.said == [BEGAN, ENDED]
    log.trouble.meet(AWAY)
    assert log.said == [BEGAN, ENDED, BEGAN]


def test_a_database_that_answers_some_and_refuses_others_is_away_all_the_time(caplog):
    log = Log(caplog)
    for _ in range(50):
        log.trouble.meet(AWAY)
        log.now += QUIET - 0.5
        log.trouble.answered(wrote=True)
    assert log.said == [BEGAN]


def test_what_was_answered_without_a_write_needed_no_room(caplog):
    log = Log(caplog)
    log.trouble.meet(FULL)
    log.now += QUIET
    log.trouble.answered(wrote=False)
    began = ("ERROR", "it has no room. Meanwhile nothing is accepted; runs and deliveries wait.")
    assert log.said == [began]
    log.trouble.answered(wrote=True)
    assert log.said == [
        began,
        ("WARNING", "PostgreSQL at db.example/x can be written again: what waited goes on"),
    ]


def test_no_room_and_no_answer_are_two_troubles(caplog):
    log = Log(caplog)
    log.trouble.meet(FULL)
    log.trouble.meet(AWAY)
    assert len(log.said) == 2
    log.now += QUIET
    log.trouble.answered(wrote=False)
    assert log.said[2:] == [ENDED]


@pytest.mark.parametrize(
    ("error", "kind", "said_by_others"),
    [
        (ConnectionRefusedError("no"), StoreAway, logging.DEBUG),
        (TimeoutError(), StoreAway, logging.DEBUG),
        (asyncpg.CannotConnectNowError("it starts"), StoreAway, logging.DEBUG),
        (asyncpg.InterfaceError("connection is closed"), StoreAway, logging.DEBUG),
        (asyncpg.DiskFullError("no space"), StoreFull, logging.DEBUG),
        # To try these again changes nothing.
        (
            asyncpg.exceptions._base.DataError("invalid input for query argument $1"),
            StoreError,
            logging.ERROR,
        ),
        (asyncpg.UndefinedTableError("no table"), StoreError, logging.ERROR),
    ],
)
def test_only_what_may_mend_itself_is_left_to_the_store_to_tell(caplog, error, kind, said_by_others):
    caplog.set_level(logging.INFO, "crewcast.store")
    told = Database("postgresql://kim:hunter2@db.example/x").error(error)
    assert type(told) is kind
    assert level(told) == said_by_others
    assert len(caplog.records) == (kind is not StoreError)
    assert "hunter2" not in caplog.text + str(told)
