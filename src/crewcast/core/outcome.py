"""What came of one attempt to deliver an event."""

from msgspec import Struct

# Answers that a repetition seldom changes: a short schedule, then a dead letter.
SETTLED_REFUSALS = frozenset({400, 401, 403, 404, 413, 422})
# Outcomes that tell nothing about the origin: nothing was sent, by a rule or an end of ours.
OURS = frozenset({"blocked", "sealed", "stopped"})


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

    @property
    def throttled(self) -> bool:
        """It asks us to send less: 429, or a 503 that says for how long. Without that, 503 is any failure."""
        return self.status == 429 or (self.status == 503 and self.retry_after is not None)

    @property
    def ours(self) -> bool:
        """It tells nothing about the origin: we did not get as far as asking it."""
        return self.kind in OURS

    @property
    def broken(self) -> bool:
        """The origin does not work: no connection, no whole answer, or a 5xx."""
        return not self.ours if self.status is None else self.status >= 500
