"""All dead letters of an origin, page by page: every lane once, and no page says it is the last that is not."""

import asyncio
from types import SimpleNamespace

import pytest

from crewcast.api import deliveries
from crewcast.api.deliveries import LANES_AT_ONCE
from crewcast.clock import ManualClock
from crewcast.contract.redelivery import OfOrigin, next_place
from crewcast.core.errors import StoreError
from crewcast.core.event import Channel
from crewcast.core.lane import Lane
from crewcast.store.protocol import DeadLane

ORIGIN = "https://hooks.example.com"


class Dead:
    """`count` lanes with two dead letters each; nothing can be stored after `room` redeliveries."""

    def __init__(self, count: int, room: int = 1 << 30) -> None:
        self.lanes = [DeadLane(f"run-{n}", 1, 2, (ORIGIN, n, 1)) for n in range(1, count + 1)]
        self.room = room
        self.made: list[str] = []

    async def dead_lanes(self, origin, since, after, limit):
        assert (origin, since) == (ORIGIN, 5)
        return [lane for lane in self.lanes if after is None or lane.place > after][:limit]

    async def redeliver(self, run_id, *, now, lane, dead_only, since, target, auth):
        assert (lane, dead_only, since, target, auth) == (1, True, 5, None, None)
        if len(self.made) == self.room:
            raise StoreError("the disk is full")
        self.made.append(run_id)
        return [Lane(run_id, 4, ORIGIN, ORIGIN, Channel.CREW, total=2, replay_of=1)]


def page(store, after=None):
    context = SimpleNamespace(store=store, clock=ManualClock())
    return asyncio.run(deliveries._of_origin(context, OfOrigin(ORIGIN, 5, after, None)))  # type: ignore[arg-type]


def place(text):
    return (ORIGIN, *map(int, text.split(".")))


@pytest.mark.parametrize(
    "count", [0, 1, LANES_AT_ONCE - 1, LANES_AT_ONCE, LANES_AT_ONCE + 1, 2 * LANES_AT_ONCE + 50]
)
def test_every_lane_is_sent_again_once(count):
    store = Dead(count)
    told, after, pages = 0, None, 0
    while True:
        found = page(store, after)
        pages += 1
        told += len(found["lanes"])
        if found["next"] is None:
            break
        after = place(found["next"])
    assert store.made == [lane.run_id for lane in store.lanes]
    assert told == count
    assert pages == max(1, -(-count // LANES_AT_ONCE))


def test_where_the_store_cannot_go_on_the_answer_says_how_far_it_came():
    store = Dead(10, room=4)
    found = page(store)
    assert [lane["kickoff_id"] for lane in found["lanes"]] == ["run-1", "run-2", "run-3", "run-4"]
    assert found["next"] == next_place(store.lanes[3].place)
    with pytest.raises(StoreError):
        page(store, place(found["next"]))
    store.room = 99
    assert page(store, place(found["next"]))["next"] is None
    assert store.made == [lane.run_id for lane in store.lanes]
