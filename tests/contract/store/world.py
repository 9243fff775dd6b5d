"""Short ways to the values that the tests are about."""

import asyncio
from collections.abc import Sequence
from itertools import count

from msgspec.structs import replace

from crewcast.core import ids
from crewcast.core import review as reviews
from crewcast.core import run as runs
from crewcast.core.backoff import RetryPolicy
from crewcast.core.event import Channel, Event
from crewcast.core.lane import Attempt, Lane, Verdict, settle
from crewcast.core.outcome import Outcome
from crewcast.core.review import Decision, How, Review
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Hint, Settlement, Store

NOW = 1_750_000_000_000_000
SECOND = 1_000_000
DAY = 86_400 * SECOND
LEASE = 60 * SECOND
WORKER = "worker-1"
DISPATCHER = "dispatcher-1"
ALL = Channel(31)

OK = Outcome("ok", 200, duration=1200)
BUSY = Outcome("status:503", 503, retry_after=9 * SECOND, duration=10, detail="try later")
GONE = Outcome("status:410", 410)
APPROVE = Decision(True, "", "kim", How.API)
REJECT = Decision(False, "Shorter, please.", "lee", How.LINK)
AT_ONCE = RetryPolicy(short_schedule=(), give_up_after=0)
URL = "https://a.example/hook"
_serial = count(1)


def new_run(crew: str = "crew", now: int = NOW) -> Run:
    return runs.new_run(ids.run_id(now, next(_serial).to_bytes(10)), crew, b'{"topic": "x"}', now)


def lane(run: Run, number: int = 1, channels: Channel = ALL, url: str = URL) -> Lane:
    return Lane(run.id, number, url, "/".join(url.split("/")[:3]), channels)


def event(run: Run, seq: int, channel: Channel = Channel.STEP, at: int = NOW) -> Event:
    return Event(run.id, seq, channel, channel.label, b'{"n": %d}' % seq, at)


async def queued(store: Store, *lanes: Channel, crew: str = "crew", url: str = URL, **fields) -> Run:
    """A run that waits, with a lane for each of `lanes`; `fields` are theirs."""
    run = new_run(crew)
    made = [replace(lane(run, n, channels, url), **fields) for n, channels in enumerate(lanes, 1)]
    await store.create_run(run, made, None, NOW)
    return run


async def running(store: Store, *lanes: Channel, worker: str = WORKER, url: str = URL, **fields) -> Run:
    """A run that `worker` holds, with a lane for each of `lanes`; `fields` are theirs."""
    run = await queued(store, *lanes, crew="running", url=url, **fields)
    claimed = await store.claim_runs(["running"], 1, worker, NOW, LEASE)
    assert [r.id for r in claimed] == [run.id]
    return claimed[0]


async def append(store: Store, run: Run, *channels: Channel, at: int = NOW, token: str = WORKER) -> Run:
    """The run after one event for each of `channels`."""
    after = replace(run, seq=run.seq + len(channels))
    events = [event(run, run.seq + n, channel, at) for n, channel in enumerate(channels, 1)]
    assert await store.append(after, events, token)
    return after


async def held(store: Store, *channels: Channel, url: str = URL) -> tuple[Run, Lane]:
    """A run with these events and its one lane, which the dispatcher holds."""
    run = await append(store, await running(store, ALL, url=url), *channels)
    (lane,) = await claimed(store)
    assert lane.run_id == run.id
    return run, lane


async def ended(store: Store, run: Run, at: int = NOW) -> Run:
    """The run after its crew event, which ends it."""
    after = replace(runs.end(run, RunState.COMPLETED, at), seq=run.seq + 1)
    assert await store.append(after, [event(run, after.seq, Channel.CREW, at)], WORKER)
    return after


def question(run: Run, number: int = 1, at: int = NOW, **fields) -> Review:
    """What `run` asks; `fields` are the review's."""
    plain = Review(run.id, number, "task-1", 2, "uuid-1", "Writer", "A draft.", at)
    return reviews.ask(replace(plain, **fields))


async def paused(store: Store, run: Run, number: int = 1, at: int = NOW, **fields) -> tuple[Run, Review]:
    """A running run after it paused with an event of its task and this question."""
    asked = question(run, number, at, **fields)
    after = replace(runs.pause(run, at), seq=run.seq + 1)
    assert await store.append(after, [event(run, after.seq, Channel.TASK, at)], WORKER, review=asked)
    return after, asked


async def waiting(store: Store, *lanes: Channel, **fields) -> tuple[Run, Review]:
    """A run that waits for a person after one event, with a lane for each of `lanes`."""
    return await paused(store, await running(store, *lanes), **fields)


async def decided(
    store: Store,
    run: Run,
    asked: Review,
    *channels: Channel,
    decision: Decision = APPROVE,
    now: int = NOW,
    subscriptions: Sequence[Lane] | None = None,
) -> Run:
    """The run queued to go on, with an event for each of `channels`."""
    after = replace(runs.resume(run), seq=run.seq + len(channels))
    events = [event(run, run.seq + n, channel, now) for n, channel in enumerate(channels, 1)]
    done = reviews.decide(asked, decision, now)
    assert await store.decide(done, run, after, events, subscriptions)
    return after


async def goes_on(store: Store, run: Run, now: int = NOW) -> Run:
    """The queued run, claimed again."""
    claimed = {one.id: one for one in await store.claim_runs([run.crew], 99, WORKER, now, LEASE)}
    return claimed[run.id]


async def delivered(store: Store, lane: Lane, *seqs: int, outcome: Outcome = OK, now: int = NOW) -> Lane:
    """The lane after an attempt for each of `seqs`, given up at once if it failed; given back."""
    for n, seq in enumerate(seqs, 1):
        written = settlement(
            lane, event_of(lane, seq), outcome, policy=AT_ONCE, release=n == len(seqs), now=now
        )
        assert await store.settle(written)
        lane = written.lane
    return lane


def event_of(lane: Lane, seq: int) -> Event:
    return Event(lane.run_id, seq, Channel.STEP, "step", b"", NOW)


async def sent(store: Store, lane: Lane) -> list[tuple[int, int]]:
    """What the lane would send from where it stands: number in the lane, number in the run."""
    return [(number, one.seq) for number, one in await store.lane_events(lane, 100)]


async def claimed(store: Store, limit: int = 100, now: int = NOW, token: str = DISPATCHER) -> list[Lane]:
    return await store.claim_lanes(limit, token, now, LEASE)


def settlement(
    lane: Lane,
    head: Event,
    outcome: Outcome = OK,
    *,
    release: bool = False,
    now: int = NOW,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - a frozen value
) -> Settlement:
    """What a dispatcher writes after an attempt for `head`."""
    after, verdict = settle(lane, head, outcome, policy, now, 0.5)
    return Settlement(after, attempt(lane, head, verdict, outcome, now), release)


def attempt(lane: Lane, head: Event, verdict: Verdict, outcome: Outcome = OK, at: int = NOW) -> Attempt:
    return Attempt(lane.run_id, lane.number, head.seq, lane.tries + 1, at, outcome, verdict)


async def one_lane(store: Store, run: Run, number: int = 1) -> Lane:
    return {lane.number: lane for lane in await store.lanes(run.id)}[number]


class Heard:
    """A listener that remembers."""

    def __init__(self, store: Store) -> None:
        self.hints: list[tuple[Hint, str]] = []
        self.forget = store.listen(lambda hint, run_id: self.hints.append((hint, run_id)))

    def take(self) -> Sequence[tuple[Hint, str]]:
        hints, self.hints = self.hints, []
        return hints


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
