"""What came of one attempt to deliver an event."""

from msgspec import Struct

# Answers that a repetition seldom changes: a short schedule, then a dead letter.
SETTLED_REFUSALS = frozenset({400, 401, 403, 404, 413, 422})


class Outcome(Struct, frozen=True, gc=False):
    """`kind` is a class that a person understands: `ok`, `status:500`, `dns`, `refused`, `tls`,
    `timeout:connect`, `blocked`, `closed`, `protocol`, ...

    `retry_after` (a wait) and `duration` are microseconds. `detail` is a short text for people: the
    reason, or an excerpt of the response body. It never holds the URL's query.
    """

    kind: str
    status: int | None = None
    retry_after: int | None = None
    duration: int = 0
    detail: str | None = None

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """410: the subscriber wants no more of this run."""
        return self.status == 410

    @property
    def refused_for_good(self) -> bool:
        return self.status in SETTLED_REFUSALS
