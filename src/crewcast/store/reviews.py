"""The part of `protocol.Store` for runs that wait for a person, are stopped, or go on in another process."""

from collections.abc import Sequence
from typing import Protocol

from crewcast.core.event import Event
from crewcast.core.lane import Lane
from crewcast.core.review import Review, ReviewState
from crewcast.core.run import Run


class ReviewStore(Protocol):
    """A waiting run asks one thing: it has the one pending review that `append` wrote with its move to `waiting`.
    A running one may ask one thing in place; its review is void once the run is not running any more.

    `decide`, `conclude`, `append` of what comes later and `delete_run` exclude each other: of those that are
    called at once one holds, the others are told False, and after a crash either one of them is there, with all
    that belongs to it, or none.
    """

    async def journal(self, run_id: str) -> dict[str, bytes]:
        """What was kept of the run for its next process: the last value of each name that was not removed.

        It stays when the run ends, for runs that begin from it, and goes with the run.
        """

    # --- reviews ----------------------------------------------------------------------------

    async def review(self, run_id: str, number: int | None = None) -> Review | None:
        """One of the run's reviews, or its newest; None if there is none. Any text may be asked for."""

    async def reviews(
        self,
        state: ReviewState | str | None = ReviewState.PENDING,
        run_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[tuple[int, Review]]:
        """Reviews in one state, or in any with None, of one run or of all, in the order of asking.

        Each with its number over the whole store, which grows and is given once. A page: at most `limit` with
        a number above `after`.
        """

    async def decide(
        self,
        review: Review,
        before: Run,
        after: Run,
        events: Sequence[Event],
        subscriptions: Sequence[Lane] | None = None,
    ) -> bool:
        """Writes a review as `core.review.decide` or `expire` made it, and with it moves its run to `after`
        (`core.run.resume`, or its end), adds `events` to the log and work to the lanes: one transaction.

        False, and nothing is written, if the review is not pending any more, or the run is not in the state of
        `before` or its log has moved on. So of many decisions one holds, whoever makes them. The attempts of the
        run, its lease and its work are not changed.

        A run whose process waits in place is running (`append` had its review without a move): then `after` is
        `before`, nothing of the run is changed, and False means that the review is not pending or the run not
        running any more.

        With `subscriptions` those are the URLs of the run from its next event on (`before.seq + 1`, the first of
        `events`), each with its channels and authentication; without, nothing changes. A URL that is not among
        them hears no more, and gives up nothing: what was committed before is still sent to it, and its lane
        stays. A URL that had a lane gets it back, closed if it was closed, in the order that it was; it sends
        first what waits there, then what comes, numbered on without gaps (`crewcast-lane-seq`), and nothing of
        what it did not hear meanwhile. A new URL gets a lane with the run's next number. Of a lane only `url`,
        `origin`, `channels`, `ordered` and `auth` are read here. Replays and split lanes are not touched: each
        sends what it was made to send. A dispatcher that holds a lane meanwhile is told the right events by
        `lane_events`, and learns of the new authentication at its next claim. Raises ValueError for a URL that
        is there twice.
        """

    async def due_reviews(self, now: int, limit: int) -> list[Review]:
        """Pending reviews whose deadline or reminder is due, longest due first. See `core.review.due`."""

    async def next_review_due(self) -> int | None:
        """When the next pending review is due (may lie in the past), or None."""

    async def remind(self, review: Review, before: Run, after: Run, events: Sequence[Event]) -> bool:
        """Writes a review after `core.review.remind`, and adds `events` to the log of its run, which waits on:
        one transaction. False, and nothing is written, as with `decide`, or if somebody else gave the reminder.
        """

    # --- the ends of runs that nobody holds, and stops --------------------------------------

    async def conclude(self, before: Run, after: Run, events: Sequence[Event]) -> bool:
        """Moves a run that nobody holds (queued, waiting) to `after`, with `events` in its log: one transaction.

        False, and nothing is written, if the run is not in the state of `before`, its log has moved on, or
        somebody holds it. A pending review is void from then on, by `after.stop`. The attempts of the run and its
        work are not changed, nor who asked to stop it, if somebody had.
        """

    async def request_stop(self, run_id: str, by: str) -> Run | None:
        """Notes on a running run that `by` wants it to stop, and returns the run as it is then, whatever state it
        is in; None if it is unknown.

        Of a run that is not running nothing is changed: `conclude` ends it. The first who asked stays noted, until
        and after the run's end, through appends, pauses and requeues. It is not claimed again.
        """

    async def stops(self, lease_token: str) -> list[str]:
        """Runs that were asked to stop and have not ended: those held by `lease_token`, which may not have heard,
        and those that paused or were requeued meanwhile, which nobody holds: `conclude` ends them.
        """
