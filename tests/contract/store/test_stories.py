"""Any story of appends, outcomes, decisions, redeliveries and deletions: what holds after each step, and in the end."""

import asyncio
from collections import defaultdict

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from crewcast.core import run as runs
from crewcast.core.backoff import RetryPolicy
from crewcast.core.event import Channel
from crewcast.core.lane import Lane, Verdict, settle, split
from crewcast.core.outcome import Outcome
from crewcast.core.run import Run, RunState
from crewcast.store.protocol import Removal, Settlement, Store
from tests.contract.store.world import (
    AT_ONCE,
    BUSY,
    DAY,
    GONE,
    LEASE,
    NOW,
    OK,
    WORKER,
    attempt,
    decided,
    lane,
    new_run,
    paused,
)
from tests.contract.store.world import event as made_event

TASK, STEP = Channel.TASK, Channel.STEP
URLS = [f"https://{name}.example/hook" for name in "abc"]
REFUSED = Outcome("status:404", 404)
LONG = RetryPolicy()


class Story:
    """The runs of one example and what has come of their events."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = NOW
        self.runs: dict[str, Run] = {}
        self.logs: dict[str, list[Channel]] = {}
        self.cursors: dict[tuple[str, int], int] = {}
        # (run, live lane, seq) of what was accepted there or on a lane that split from it, and at which step a
        # replay of it was accepted last.
        self.accepted: set[tuple[str, int, int]] = set()
        self.replayed: dict[tuple[str, int, int], int] = {}
        # What each URL heard: from which event on which channels.
        self.heard: dict[tuple[str, str], list[tuple[int, Channel]]] = defaultdict(list)
        self.held: dict[tuple[str, int], Lane] = {}  # as a dispatcher knows them
        self.letters: dict[int, int] = {}  # at which step they were first seen, by number
        self.step = 0

    async def begin(self) -> None:
        for ordered in (True, False):
            run = new_run()
            run = replace(run, crew=run.id)  # no other example's
            lanes = [lane(run, 1, TASK | STEP, URLS[0]), lane(run, 2, STEP, URLS[1])]
            await self.store.create_run(run, [replace(one, ordered=ordered) for one in lanes], None, NOW)
            (claimed,) = await self.store.claim_runs([run.id], 1, WORKER, NOW, LEASE)
            for one in lanes:
                self.heard[run.id, one.url].append((1, one.channels))
            self.runs[run.id], self.logs[run.id] = claimed, []
        await self.append(0, [STEP, TASK, STEP])
        await self.append(1, [STEP, STEP, TASK])

    def pick(self, which: int) -> str | None:
        return list(self.runs)[which % len(self.runs)] if self.runs else None

    # --- steps ------------------------------------------------------------------------------

    async def append(self, which: int, channels: list[Channel]) -> None:
        run_id = self.pick(which)
        if run_id is None:
            return
        run = self.runs[run_id]
        after = replace(run, seq=run.seq + len(channels))
        events = [made_event(run, run.seq + n, channel, self.now) for n, channel in enumerate(channels, 1)]
        done = await self.store.append(after, events, WORKER)
        assert done == (run.state is RunState.RUNNING)
        if done:
            self.runs[run_id] = after
            self.logs[run_id] += channels

    async def decide(self, which: int, wanted: dict[int, Channel]) -> None:
        """The run pauses, and a person decides who hears it from there on."""
        run_id = self.pick(which)
        if run_id is None or self.runs[run_id].state is not RunState.RUNNING:
            return
        number = 1 + len(await self.store.reviews(None, run_id))
        run, asked = await paused(self.store, self.runs[run_id], number, self.now)
        lanes = [
            replace(lane(run, 1, channels, URLS[n]), ordered=number % 2 == 1)
            for n, channels in wanted.items()
        ]
        run = await decided(self.store, run, asked, STEP, now=self.now, subscriptions=lanes)
        self.logs[run_id] += [TASK, STEP]
        for n, url in enumerate(URLS):
            self.heard[run_id, url].append((run.seq, wanted.get(n, Channel(0))))
        (self.runs[run_id],) = await self.store.claim_runs([run_id], 1, WORKER, self.now, LEASE)

    async def hold(self) -> None:
        """A dispatcher claims what is due and comes to send it later."""
        self.held |= {(one.run_id, one.number): one for one in await self.due()}

    async def send(self, outcomes: list[Outcome], at_once: bool) -> None:  # noqa: FBT001
        """Each lane that is due or held sends one event for each of `outcomes`, as a dispatcher does."""
        await self.hold()
        lanes, self.held = self.held, {}
        await asyncio.gather(*(self.deliver(one, outcomes, at_once=at_once) for one in lanes.values()))

    async def due(self) -> list[Lane]:
        """Its own: an example that failed may have left others in the store."""
        lanes = await self.store.claim_lanes(9999, "story", self.now, LEASE)
        return [one for one in lanes if one.run_id in self.runs]

    async def deliver(self, mine: Lane, outcomes: list[Outcome], *, at_once: bool) -> None:
        writing = []
        heads = await self.store.lane_events(mine, len(outcomes))
        released = False
        assert heads, "a lane was due with nothing to send"
        for (_, head), outcome in zip(heads, outcomes, strict=False):
            policy = AT_ONCE if at_once else LONG
            after, verdict = settle(mine, head, outcome, policy, self.now, 0.5)
            made, apart = attempt(mine, head, verdict, outcome, self.now), None
            if verdict is Verdict.RETRY and not mine.ordered:
                after, apart = split(mine, head, after)
            released = (verdict is Verdict.RETRY and apart is None) or verdict is Verdict.CLOSED
            writing.append(self.store.settle(Settlement(after, made, release=released, split=apart)))
            if verdict is Verdict.ACCEPTED:
                place = (mine.run_id, mine.replay_of or mine.split_of or mine.number, head.seq)
                if mine.replay_of is None:
                    self.accepted.add(place)
                else:
                    self.replayed[place] = self.step + 1  # the check that follows
            mine = after
            if released:
                break
        assert all([await write for write in writing])
        if not released:
            await self.store.release_lane(mine, self.now)

    async def redeliver(self, which: int, seq: int | None, dead_only: bool) -> None:  # noqa: FBT001
        run_id = self.pick(which)
        if run_id is not None:
            await self.store.redeliver(run_id, now=self.now, seq=seq, dead_only=dead_only)

    async def finish(self, which: int) -> None:
        run_id = self.pick(which)
        if run_id is not None and self.runs[run_id].state is RunState.RUNNING:
            after = runs.end(self.runs[run_id], RunState.COMPLETED, self.now)
            assert await self.store.append(after, [], WORKER)
            self.runs[run_id] = after

    async def delete(self, which: int) -> None:
        run_id = self.pick(which)
        if run_id is not None:
            running = self.runs[run_id].state is RunState.RUNNING
            found = await self.store.delete_run(run_id)
            assert found is (Removal.RUNNING if running else Removal.HIDDEN)
            if not running:
                del self.runs[run_id]
                self.held = {place: one for place, one in self.held.items() if one.run_id != run_id}

    async def expire(self, which: int) -> None:
        pending = {run_id for run_id in self.runs for one in await self.store.lanes(run_id) if waits(one)}
        for run_id in await self.store.expire(self.now, 9999):
            if run_id in self.runs:
                assert run_id not in pending
                assert self.runs.pop(run_id).state is RunState.COMPLETED

    async def sweep(self, limit: int) -> None:
        assert await self.store.sweep(limit) <= limit

    # --- what holds -------------------------------------------------------------------------

    async def check(self) -> None:
        self.step += 1
        for run_id in self.logs:
            lanes = await self.store.lanes(run_id)
            if run_id not in self.runs:
                assert lanes == []
                continue
            dead = await self.store.dead_letters(run_id)
            given_up = {(one.lane, one.seq) for one in dead}
            for one in lanes:
                key = (run_id, one.number)
                assert self.cursors.get(key, 0) <= one.cursor
                self.cursors[key] = one.cursor
                if key not in self.held:
                    assert one.lease_token is None
                    assert (one.due_at is not None) == waits(one)
                heads = await self.store.lane_events(one, 1000)
                if one.closed is None:
                    assert len(heads) == one.total - one.settled
                numbers = {n: i for i, n in enumerate(self.mine(one), 1)}
                for number, head in heads:
                    assert number == numbers[head.seq]
                if not one.fixed:
                    assert [head.seq for _, head in heads] == [n for n in self.mine(one) if n > one.cursor]
                    assert one.total == len(numbers)
                    await self.every_event_is_somewhere(run_id, one, lanes, given_up)
            for letter in dead:
                of = {one.number: one for one in lanes}[letter.lane]
                places = self.mine(of)
                assert places.index(letter.seq) + 1 == letter.lane_seq
                first = self.letters.setdefault(letter.number, self.step)
                last = self.replayed.get((run_id, of.replay_of or of.number, letter.seq), -1)
                if first != last:  # within one step either may have come first
                    assert letter.redelivered == (last > first)

    def mine(self, one: Lane) -> list[int]:
        """The events that belong to the lane's URL, in order."""
        heard = self.heard[one.run_id, one.url]
        return [
            seq
            for seq, channel in enumerate(self.logs[one.run_id], 1)
            if channel & next((channels for first, channels in reversed(heard) if first <= seq), Channel(0))
        ]

    async def every_event_is_somewhere(
        self, run_id: str, live: Lane, lanes: list[Lane], given_up: set[tuple[int, int]]
    ) -> None:
        """Accepted, given up, waiting, or on a lane of its own: never lost, and never two of them."""
        apart = {one.tail for one in lanes if one.split_of == live.number and waits(one)}
        places: dict[int, int] = defaultdict(int)
        for seq in self.mine(live):
            places[seq] += (run_id, live.number, seq) in self.accepted
            places[seq] += (live.number, seq) in given_up
            places[seq] += seq in apart
            places[seq] += live.closed is None and seq > live.cursor
        assert set(places.values()) <= {1}, places

    async def end(self) -> None:
        """Everything that waits is accepted in the end; then nothing keeps a run."""
        for _ in range(99):
            self.now += 2 * DAY
            await self.hold()
            if not self.held:
                break
            await self.send([OK] * 99, at_once=False)
        await self.check()
        assert await self.due() == []
        for n in range(len(self.runs)):
            await self.finish(n)
        self.now += 1
        await self.expire(0)
        assert self.runs == {}
        while await self.store.sweep(50):
            pass
        await self.check()


def waits(one: Lane) -> bool:
    return one.cursor < one.tail and one.closed is None


which = st.integers(0, 1)
outcomes = st.lists(st.sampled_from([OK, OK, BUSY, BUSY, REFUSED, GONE]), min_size=1, max_size=4)
wanted = st.dictionaries(st.integers(0, 2), st.sampled_from([STEP, TASK, TASK | STEP]))
steps = st.one_of(
    st.tuples(st.just("append"), which, st.lists(st.sampled_from([TASK, STEP, Channel.CREW]), max_size=4)),
    st.tuples(st.just("send"), outcomes, st.booleans()),
    st.tuples(st.just("send"), outcomes, st.just(True)),
    st.tuples(st.just("redeliver"), which, st.none() | st.integers(1, 6), st.booleans()),
    st.tuples(st.just("redeliver"), which, st.none(), st.just(True)),
    st.tuples(st.just("decide"), which, wanted),
    st.tuples(st.just("decide"), which, wanted),
    st.tuples(st.just("hold")),
    st.tuples(st.just("finish"), which),
    st.tuples(st.just("delete"), which),
    st.tuples(st.just("expire"), which),
    st.tuples(st.just("sweep"), st.integers(1, 9)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=8, max_size=25))
def test_any_story_loses_nothing_and_ends(store: Store, runner, story):
    async def scenario() -> None:
        told = Story(store)
        await told.begin()
        for name, *arguments in story:
            await getattr(told, name)(*arguments)
            told.now += DAY
            await told.check()
        await told.end()

    runner.run(scenario())
