"""Which events of a URL never came.

    gaps = GapDetector("gaps.db")

    for number in gaps.see(delivery, request.path):
        log.error("event %d of %s is missing", number, delivery.kickoff_id)

The server numbers the events of each run and URL 1, 2, 3 (`crewcast-lane-seq`) and sends them in this order,
given-up ones left out. Somebody who has them sent again (`crewcast redeliver`) fills the gap.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from crewcast.webhooks.file import File, Path
from crewcast.webhooks.verification import Delivery

DAY = 86400.0
KEEP = 30 * DAY
SLICE = 100  # old lanes that go at once

Ranges = tuple[tuple[int, int], ...]  # first and last number of each


@dataclass(frozen=True, slots=True)
class Lane:
    """What came of a run's events at one URL: everything up to `highest` but what is `missing`."""

    highest: int = 0
    missing: Ranges = ()


def advance(lane: Lane, number: int) -> tuple[Lane, range]:
    """The lane after a delivery with this number, and the numbers that it has shown to be missing."""
    if number > lane.highest:
        left_out = range(lane.highest + 1, number)
        found = ((left_out.start, left_out.stop - 1),) if left_out else ()
        return Lane(number, lane.missing + found), left_out
    missing: list[tuple[int, int]] = []
    for first, last in lane.missing:
        parts = ((first, number - 1), (number + 1, last)) if first <= number <= last else ((first, last),)
        missing += [part for part in parts if part[0] <= part[1]]
    return Lane(lane.highest, tuple(missing)), range(0)


@dataclass(frozen=True, slots=True)
class Gap:
    kickoff_id: str
    url: str
    numbers: range


class GapDetector:
    """Watches `crewcast-lane-seq`. Threads may share one, and with a `path` processes and restarts.

    Without a path it forgets when the process ends, and then takes what came before for missing. What was not
    touched for `keep` seconds is forgotten.
    """

    def __init__(
        self, path: Path | None = None, *, keep: float = KEEP, clock: Callable[[], float] = time.time
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._file = File(path, _SCHEMA)

    def close(self) -> None:
        self._file.close()

    def see(self, delivery: Delivery, url: str) -> range:
        """Notes a delivery; the numbers that are missing as of now, in most cases none.

        `url` is any name for the URL that was called, another for each that a kickoff names: they are
        numbered apart. A repetition shows nothing and does no harm; one that was missing is missing no more.
        With `"ordering": "none"` events come out of order, and what is missing for a moment comes soon.
        """
        if delivery.lane_seq < 1:
            return range(0)
        now = self._clock()
        with self._file.transaction() as db:
            db.execute(
                "DELETE FROM lane WHERE rowid IN (SELECT rowid FROM lane WHERE at < ? ORDER BY at LIMIT ?)",
                (now - self._keep, SLICE),
            )
            which = delivery.kickoff_id, url
            row = db.execute(
                "SELECT highest, missing FROM lane WHERE kickoff_id = ? AND url = ?", which
            ).fetchone()
            before = Lane() if row is None else Lane(row[0], _ranges(row[1]))
            after, found = advance(before, delivery.lane_seq)
            db.execute(
                "INSERT OR REPLACE INTO lane (kickoff_id, url, highest, missing, at) VALUES (?, ?, ?, ?, ?)",
                (*which, after.highest, json.dumps(after.missing), now),
            )
        return found

    def missing(self, kickoff_id: str | None = None) -> list[Gap]:
        """What is missing now, of one run or of all."""
        with self._file.transaction() as db:
            rows = db.execute(
                "SELECT kickoff_id, url, missing FROM lane "
                "WHERE missing <> '[]' AND (?1 IS NULL OR kickoff_id = ?1) ORDER BY kickoff_id, url",
                (kickoff_id,),
            ).fetchall()
        return [
            Gap(run, url, range(first, last + 1))
            for run, url, missing in rows
            for first, last in _ranges(missing)
        ]


def _ranges(text: str) -> Ranges:
    return tuple((first, last) for first, last in json.loads(text))


_SCHEMA = """
CREATE TABLE IF NOT EXISTS lane (
    kickoff_id TEXT NOT NULL,
    url        TEXT NOT NULL,
    highest    INTEGER NOT NULL,
    missing    TEXT NOT NULL,
    at         REAL NOT NULL,
    PRIMARY KEY (kickoff_id, url)
);
CREATE INDEX IF NOT EXISTS lane_at ON lane (at);
"""
