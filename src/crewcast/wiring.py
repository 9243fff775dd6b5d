"""What the settings mean to each part of a node."""

import math
from collections.abc import Sequence

from crewcast.config import Settings
from crewcast.contract.authentication import Authentication
from crewcast.contract.terms import ReviewTerms
from crewcast.contract.webhooks import auth_headers
from crewcast.core.backoff import SECOND, RetryPolicy
from crewcast.core.lane import Lane
from crewcast.core.review import Default
from crewcast.crew.limits import CrewLimits, WorkerLimits
from crewcast.dispatch.dispatcher import DispatchLimits
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.sender import SenderLimits
from crewcast.keys import open_sealed, seal


def worker_limits(settings: Settings, crews: Sequence[str]) -> WorkerLimits:
    return WorkerLimits(
        concurrent_runs=settings.max_runs,
        max_event_bytes=settings.max_event_bytes,
        per_token=settings.max_runs_per_token or None,
        crews={name: _crew_limits(settings.of_crew(name), settings) for name in crews},
        stop_grace=settings.seconds("stop_grace"),
        lease=settings.seconds("lease"),
        patience=None if settings.database_url is None else settings.lease / 2,
    )


def _crew_limits(own: Settings, all_crews: Settings) -> CrewLimits:
    return CrewLimits(
        attempts=own.max_attempts,
        stall=own.seconds("stall_timeout") or None,
        timeout=own.seconds("run_timeout") or None,
        runs=own.max_runs if own.max_runs < all_crews.max_runs else None,
    )


def review_terms(own: Settings) -> ReviewTerms:
    return ReviewTerms(
        timeout=own.seconds("review_timeout") or None,
        default=Default(own.review_default),
        remind_every=own.seconds("review_reminder") or None,
        pass_feedback=own.pass_feedback,
    )


def retry_policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        schedule=tuple(int(wait * SECOND) for wait in settings.retry_schedule),
        give_up_after=settings.seconds("give_up_after"),
    )


def dispatch_limits(settings: Settings) -> DispatchLimits:
    return DispatchLimits(
        per_origin=settings.origin_concurrency,
        crew_wait=settings.seconds("crew_wait"),
        rate=settings.origin_rate,
        lease=settings.seconds("lease"),
    )


def egress_policy(settings: Settings) -> EgressPolicy:
    dev = settings.command == "dev"
    return EgressPolicy(
        allow_http=dev,
        allow_loopback=dev,
        allow=settings.allow_networks,
        allow_hosts=settings.allow_hosts,
        deny=settings.deny_networks,
    )


def sender_limits(settings: Settings) -> SenderLimits:
    return SenderLimits(
        total=settings.delivery_timeout,
        resolve=settings.connect_timeout,
        connect=settings.connect_timeout,
        tls=settings.connect_timeout,
        response=settings.response_timeout or math.inf,
    )


class Seals:
    """What the master key seals for a lane, and opens."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    def seal(self, auth: Authentication, run_id: str, url: str) -> bytes:
        return seal(self._master, auth.encode(), run_id, url)

    def opened(self, lane: Lane) -> list[tuple[bytes, bytes]]:
        """The headers of the authentication that is sealed in a lane. Raises SealError."""
        if lane.auth is None:
            return []
        return auth_headers(Authentication.decode(self._open(lane, lane.auth)))

    def resealed(self, lane: Lane, run_id: str) -> bytes | None:
        """The same for another run."""
        if lane.auth is None:
            return None
        return seal(self._master, self._open(lane, lane.auth), run_id, lane.url)

    def _open(self, lane: Lane, sealed: bytes) -> bytes:
        return open_sealed(self._master, sealed, lane.run_id, lane.url)
