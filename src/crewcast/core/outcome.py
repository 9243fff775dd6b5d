"""What came of one attempt to deliver an event."""

from msgspec import Struct

# Answers that a repetition seldom changes: a short schedule, then a dead letter.
SETTLED_REFUSALS = frozenset({400, 401, 403, 404, 413, 422})
# Every kind there is, besides `status:NNN`.
KINDS = {
    "ok": "the subscriber took the event",
    "blocked": "the address may not be reached",
    "dns": "the name has no address",
    "refused": "nobody listens there",
    "unreachable": "there is no way to the address",
    "tls": "the TLS handshake or the certificate failed",
    "reset": "the connection broke before the answer was whole",
    "closed": "the connection was closed before the answer was whole",
    "protocol": "the answer is not valid HTTP/1.1",
    "header_too_large": "the head of the answer is too large",
    "timeout:resolve": "looking up the name took too long",
    "timeout:connect": "nobody answered the connection",
    "timeout:tls": "the TLS handshake took too long",
    "timeout:write": "the subscriber did not read the request",
    "timeout:response": "no answer began in time",
    "timeout:total": "the answer did not end in time",
    "proxy": "the proxy made no connection",
    "local": "this machine could not make a connection",
    "sealed": "the stored authentication could not be opened",
    "stopped": "the server stopped during the attempt",
}
# Of these, what tells nothing about the origin, and is not held against it: by a rule or a failure of our own side,
# nothing was sent.
OURS = frozenset({"blocked", "sealed", "proxy", "local", "stopped"})


class Outcome(Struct, frozen=True, gc=False):
    """`kind` is a class that a person understands: one of KINDS, or `status:500`.

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
