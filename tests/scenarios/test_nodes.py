"""Nodes of different roles over one store: the parts of each as `server.py` makes them, and time that moves by hand."""

import asyncio
import json
import logging
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from crewcast import config
from crewcast.api import runs
from crewcast.api.app import create_app
from crewcast.clock import ManualClock
from crewcast.contract import webhooks
from crewcast.contract.crews import Described
from crewcast.core.backoff import DAY, SECOND
from crewcast.core.errors import UsageError
from crewcast.core.keyring import KeyRing
from crewcast.core.node import Node, Role
from crewcast.crew.project import discover
from crewcast.nodes import AGAIN, KNOWN_FOR, Directory, Registry
from crewcast.parts import Ground, Parts
from crewcast.store.sqlite import SQLiteStore
from tests.scenarios.world import at_rest
from tests.support.mill import MILL, TASKS, Sack
from tests.support.receiver import Receiver, first_deliveries
from tests.support.shaky import Shaky

LEASE = 60 * SECOND
TOKEN = "t"
TEA = Described("classic", ["leaf", "topic"], ["topic"], tasks=["boil", "pour"], warnings=["odd"])


class World:
    """One store, which all nodes share, and their clock."""

    def __init__(self, folder: Path, store: SQLiteStore) -> None:
        self.folder, self.store = folder, store
        self.clock = ManualClock()
        self.made: list[Parts] = []

    async def node(self, *roles: str, projects: tuple[Path, ...] = (), **flags: str) -> Parts:
        """A node at work."""
        data = str(self.folder / f"node-{len(self.made)}")
        given = {"database_url": "postgresql://unused/x", "roles": ",".join(roles), "data_dir": data}
        settings = config.load("dev", given | {"node_name": "-".join(roles)} | flags, {})
        master = bytes(32)
        ground = Ground(settings, self.store, self.clock, master, KeyRing(master))
        found = [(str(project), discover(str(project))) for project in projects]
        parts = Parts(ground, found, None, TOKEN if Role.API in settings.roles else None)
        self.made.append(parts)
        await parts.recover()
        parts.start()
        return parts

    async def worker(
        self, name: str, *, until: int | None = None, draining: bool = False, **crews: Described
    ) -> Node:
        """A node that says so and no more."""
        now = self.clock.now()
        node = Node(
            f"id-{name}", name, (Role.WORKER,), "1", now, now, until or now + LEASE, tuple(sorted(crews))
        )
        node = replace(node, draining=draining)
        await self.store.beat(node, {crew: told.encode() for crew, told in crews.items()}, 0)
        return node

    async def until(self, condition: Any, within: float = 30) -> Any:
        """What the coroutine function says once that is true; time goes on slowly."""
        end = time.monotonic() + within
        while not (found := await condition()):
            assert time.monotonic() < end, "never so"
            await asyncio.sleep(0.01)
        return found

    async def next_look(self) -> None:
        """Every directory has looked again, at all that was done before."""
        for _ in range(3):
            await at_rest(self.store)
            self.clock.advance(SECOND)
        await at_rest(self.store)


@asynccontextmanager
async def world(folder: Path):
    store = await SQLiteStore.open(folder / "store")
    made = World(folder, store)
    try:
        yield made
    finally:
        for parts in made.made:
            await parts.close()
        await store.close()


class Client:
    """A client of a node's API."""

    def __init__(self, parts: Parts) -> None:
        assert parts.context is not None
        transport = httpx.ASGITransport(create_app(parts.context))
        headers = {"authorization": f"Bearer {TOKEN}"}
        self._http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    async def get(self, path: str) -> httpx.Response:
        return await self._http.get(path)

    async def kickoff(self, inputs: dict[str, Any], path: str = "/kickoff", **fields: Any) -> httpx.Response:
        return await self._http.post(path, json={"inputs": inputs, **fields})

    async def status(self, kickoff_id: str) -> Any:
        return (await self.get(f"/status/{kickoff_id}")).json()

    async def crews(self) -> dict[str, Any]:
        return {crew["name"]: crew for crew in (await self.get("/crews")).json()["crews"]}


# --- crews of other nodes -----------------------------------------------------------------------


def test_an_api_serves_what_a_worker_told_and_holds_kickoffs_to_it(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            assert (await client.get("/crews")).json() == {"crews": [], "default": None}
            assert (await client.kickoff({})).status_code == 404
            await w.worker("kitchen", tea=TEA)
            await w.next_look()
            told = (await client.get("/crews")).json()
            assert told == {
                "crews": [
                    {
                        "name": "tea",
                        "kind": "classic",
                        "state": "ready",
                        "inputs": ["leaf", "topic"],
                        "required": ["topic"],
                        "tasks": ["boil", "pour"],
                        "warnings": ["odd"],
                    }
                ],
                "default": "tea",
            }
            for path in ("/inputs", "/crews/tea/inputs"):
                assert (await client.get(path)).json() == {"inputs": ["leaf", "topic"]}
            lacking = await client.kickoff({"leaf": "green"})
            assert (lacking.status_code, lacking.json()["details"]) == (422, {"missing_inputs": ["topic"]})
            answer = await client.kickoff({"topic": "x"})
            assert answer.status_code == 200
            status = await client.status(answer.json()["kickoff_id"])
            assert (status["crew"], status["state"], status["progress"]["total_tasks"]) == (
                "tea",
                "PENDING",
                2,
            )
            assert "waits_for" not in status

    asyncio.run(story())


def test_a_kickoff_for_a_crew_whose_workers_are_gone_waits_and_the_status_says_so(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            await w.worker("kitchen", tea=TEA)
            w.clock.advance(LEASE)
            await w.next_look()
            assert (await client.crews())["tea"]["state"] == "no worker"
            kickoff_id = (await client.kickoff({"topic": "x"})).json()["kickoff_id"]
            status = await client.status(kickoff_id)
            assert (status["status"], status["state"]) == ("running", "PENDING")
            assert status["waits_for"] == "a worker that takes runs of tea: none is there"
            await w.worker("kitchen", tea=TEA, draining=True)
            await w.next_look()
            assert "waits_for" in await client.status(kickoff_id)
            await w.worker("bar", tea=TEA)
            await w.next_look()
            assert "waits_for" not in await client.status(kickoff_id)
            assert (await client.crews())["tea"]["state"] == "ready"

    asyncio.run(story())


def test_the_only_worker_takes_nothing_new_while_it_stops_and_its_own_api_says_so(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            parts = await w.node("api", "worker", projects=(MILL,), max_runs=1)
            client = Client(parts)

            async def ready() -> bool:
                w.clock.advance(SECOND // 10)
                return (await client.crews())["mill"]["state"] == "ready"

            await w.until(ready, 60)
            sack = Sack(tmp_path / "sack", clean_task=["wait"])
            ids = [(await client.kickoff(sack.inputs)).json()["kickoff_id"] for _ in range(2)]
            await w.until(lambda: asyncio.sleep(0, sack.calls))
            assert "waits_for" not in await client.status(ids[1])
            draining = asyncio.create_task(parts.drain(asyncio.Event()))
            await w.next_look()
            assert (await client.crews())["mill"]["state"] == "no worker"
            status = await client.status(ids[1])
            assert status["waits_for"] == "a worker that takes runs of mill: none is there"
            assert "waits_for" not in await client.status(ids[0])
            await w.worker("bar", mill=TEA)
            await w.next_look()
            assert (await client.crews())["mill"]["state"] == "ready"
            assert "waits_for" not in await client.status(ids[1])
            sack.go()
            await draining

    asyncio.run(story())


def test_a_crew_that_nobody_has_told_of_for_a_day_is_unknown(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            await w.worker("kitchen", tea=TEA)
            w.clock.advance(KNOWN_FOR - 10 * SECOND)
            await w.next_look()
            assert (await client.kickoff({"topic": "x"})).status_code == 200
            w.clock.advance(10 * SECOND)
            await w.next_look()
            assert await client.crews() == {}
            assert (await client.kickoff({"topic": "x"})).status_code == 404

    asyncio.run(story())


def test_of_several_crews_the_default_is_meant_or_none(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            plain, chosen = Client(await w.node("api")), Client(await w.node("api", default_crew="tea"))
            unknown = await chosen.kickoff({"topic": "x"})
            assert (unknown.status_code, unknown.json()["details"]) == (404, {"crews": []})
            await w.worker("kitchen", tea=TEA)
            await w.worker("bakery", cake=Described("flow", error="no oven"))
            await w.next_look()
            answer = await plain.kickoff({"topic": "x"})
            assert (answer.status_code, answer.json()["details"]) == (404, {"crews": ["cake", "tea"]})
            assert (await plain.kickoff({"topic": "x"}, "/crews/tea/kickoff")).status_code == 200
            kickoff_id = (await chosen.kickoff({"topic": "x"})).json()["kickoff_id"]
            assert (await chosen.status(kickoff_id))["crew"] == "tea"

    asyncio.run(story())


def test_a_crew_that_a_worker_cannot_load_is_told_with_its_error(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            await w.worker("bakery", cake=Described("flow", error="no oven"))
            await w.next_look()
            cake = {"name": "cake", "kind": "flow", "state": "not loadable", "error": "no oven"}
            assert await client.crews() == {"cake": cake}
            inputs = await client.get("/inputs")
            assert (inputs.status_code, inputs.json()["message"]) == (
                500,
                "The project cannot be loaded: no oven",
            )
            assert (await client.kickoff({"anything": 1})).status_code == 200  # and its run will fail

    asyncio.run(story())


def test_what_a_later_release_says_of_a_crew_is_understood_or_passed_over(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            now = w.clock.now()
            node = Node("n", "later", (Role.WORKER,), "9", now, now, now + LEASE, ("cake", "tea"))
            tea = json.dumps({"kind": "swarm", "inputs": ["topic"], "mood": "new"}).encode()
            await w.store.beat(node, {"tea": tea, "cake": b'{"kind": 7}'}, 0)
            await w.next_look()
            assert await client.crews() == {
                "tea": {"name": "tea", "kind": "swarm", "state": "ready", "inputs": ["topic"], "required": []}
            }

    asyncio.run(story())


def test_a_log_on_another_machine_is_404_and_says_where_it_lies_while_that_is_known(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            node = await w.worker("kitchen", tea=TEA)
            await w.next_look()
            kickoff_id = (await client.kickoff({"topic": "x"})).json()["kickoff_id"]
            path = f"/api/v1/runs/{kickoff_id}/logs"
            queued = await client.get(path)
            assert (queued.status_code, queued.text) == (200, "")
            (run,) = await w.store.claim_runs(["tea"], 1, node.id, w.clock.now(), LEASE)
            held = await client.get(path)
            assert (held.status_code, held.json()["details"]) == (404, {"node": "kitchen"})
            assert "lies on node kitchen" in held.json()["message"]
            assert await w.store.adopt(run, "somebody", w.clock.now() + LEASE)
            lost = await client.get(path)
            assert (lost.status_code, lost.json()["details"]) == (404, {})
            assert "lies on another node" in lost.json()["message"]

    asyncio.run(story())


def test_who_watches_a_run_hears_the_rest_when_the_store_is_back(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            parts = await w.node("api")
            await w.worker("kitchen", tea=TEA)
            await w.next_look()
            kickoff_id = (await Client(parts).kickoff({"topic": "x"})).json()["kickoff_id"]
            assert parts.context is not None
            store = parts.context.store = Shaky(w.store)  # type: ignore[assignment]
            watching = runs._stream(parts.context, kickoff_id, 0)
            assert (await anext(watching)).startswith(b"event: run\ndata: ")
            store.down = True
            following = asyncio.ensure_future(anext(watching))
            await w.store.request_stop(kickoff_id, "kim")
            await w.store.claim_runs(["tea"], 1, "id-kitchen", w.clock.now(), LEASE)  # it is heard of
            await w.until(lambda: asyncio.sleep(0, store.asked[-1:] == ["run"] and len(store.asked) > 2))
            await at_rest(w.store)
            assert not following.done()
            store.down = False
            w.clock.advance(SECOND)
            assert b'"state":"STARTED"' in await following
            await watching.aclose()

    asyncio.run(story())


class Deaf(Shaky):
    """A store to which no hint comes: those of other nodes may be lost."""

    def listen(self, _listener: Any) -> Any:
        return lambda: None


def test_who_watches_a_run_misses_nothing_for_long_if_a_hint_is_lost(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            parts = await w.node("api")
            await w.worker("kitchen", tea=TEA)
            await w.next_look()
            kickoff_id = (await Client(parts).kickoff({"topic": "x"})).json()["kickoff_id"]
            [run] = await w.store.claim_runs(["tea"], 1, "id-kitchen", w.clock.now(), LEASE)
            assert parts.context is not None
            parts.context.store = Deaf(w.store)  # type: ignore[assignment]
            watching = runs._stream(parts.context, kickoff_id, 0)
            assert b'"state":"STARTED"' in await anext(watching)
            following = asyncio.ensure_future(anext(watching))

            async def go_on(seconds: int) -> None:
                for _ in range(seconds):
                    await at_rest(w.store)
                    w.clock.advance(SECOND)
                await at_rest(w.store)

            draft = webhooks.task_completed(run.id, "boil", "completed", w.clock.now(), output="done")
            told = webhooks.encode(draft, run.id, 1, 1, 1 << 20)
            assert await w.store.append(replace(run, seq=1), [told], "id-kitchen")
            await go_on(2)
            assert (await asyncio.wait_for(following, 30)).startswith(b"id: 1\nevent: event\n")
            # That it looks is said no more often than where there is one node.
            following = asyncio.ensure_future(anext(watching))
            await go_on(14)
            assert not following.done()
            await go_on(1)
            assert await asyncio.wait_for(following, 30) == b": still here\n\n"
            await watching.aclose()

    asyncio.run(story())


# --- roles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roles", "own"),
    [
        (("api",), {"rotations"}),
        (("dispatcher",), {"rotations", "dispatcher"}),
        (("worker",), {"worker", "deadlines"}),
        (("api", "worker", "dispatcher"), {"rotations", "dispatcher", "worker", "deadlines"}),
    ],
)
def test_a_node_has_the_parts_of_its_roles_and_no_others(tmp_path, roles, own):
    async def story():
        async with world(tmp_path) as w:
            parts = await w.node(*roles)
            assert {task.get_name() for task in parts.tasks} == own | {"registry", "retention", "directory"}
            assert (parts.context is not None) == ("api" in roles)
            assert (parts.crew_part is not None) == ("worker" in roles)
            assert (parts.delivery is not None) == ("dispatcher" in roles)
            [node] = await w.until(w.store.nodes)
            assert (node.name, node.roles) == ("-".join(roles), tuple(map(Role, roles)))

    asyncio.run(story())


def test_three_nodes_take_run_and_deliver_what_one_was_asked_for(tmp_path):
    async def story(receiver: Receiver):
        async with world(tmp_path) as w:
            client = Client(await w.node("api"))
            worker = await w.node("worker", projects=(MILL,))
            await w.node("dispatcher")

            async def ready() -> bool:
                w.clock.advance(SECOND // 10)
                return (await client.crews()).get("mill", {}).get("state") == "ready"

            await w.until(ready, 60)
            sack = Sack(tmp_path / "sack")
            urls = {name: url for name, url in receiver.urls().items() if "step" not in name}
            kickoff_id = (await client.kickoff(sack.inputs, **urls)).json()["kickoff_id"]

            async def ended() -> Any:
                w.clock.advance(SECOND // 10)
                status = await client.status(kickoff_id)
                heard = {request.event_id for request in receiver.requests}
                return status if status["state"] == "SUCCESS" and len(heard) == 4 else None

            status = await w.until(ended)
            assert sack.calls == TASKS
            assert status["result"]["output"] == "pack_task 1"
            first = [
                (one.path, one.headers["crewcast-lane-seq"]) for one in first_deliveries(receiver.requests)
            ]
            assert first == [("/task", "1"), ("/task", "2"), ("/task", "3"), ("/crew", "1")]
            # It runs what it has to its end, and nobody thinks that it takes more.
            other = Sack(tmp_path / "other", clean_task=["wait"])
            held = await client.kickoff(other.inputs)
            await w.until(lambda: asyncio.sleep(0, other.calls == ["clean_task"]))
            draining = asyncio.create_task(worker.drain(asyncio.Event()))

            async def shown() -> bool:
                nodes = (await client.get("/api/v1/nodes")).json()["nodes"]
                return {node["name"]: node["state"] for node in nodes} == {
                    "api": "alive",
                    "dispatcher": "alive",
                    "worker": "draining",
                }

            await w.until(shown)
            await w.next_look()
            late = (await client.kickoff(Sack(tmp_path / "late").inputs)).json()["kickoff_id"]
            assert "waits_for" in await client.status(late)
            assert (await client.crews())["mill"]["state"] == "no worker"
            other.go()
            await draining
            assert (await client.status(held.json()["kickoff_id"]))["state"] == "SUCCESS"
            assert (await client.status(late))["state"] == "PENDING"

    with Receiver() as receiver:
        asyncio.run(story(receiver))


def test_dispatchers_share_the_rate_of_an_origin(tmp_path, monkeypatch):
    async def story():
        async with world(tmp_path) as w:
            first = await w.node("dispatcher", "api")
            told: list[int] = []
            assert first.delivery is not None
            monkeypatch.setattr(first.delivery.dispatcher, "among", told.append)
            await w.next_look()
            assert told[-1] == 1
            second = await w.node("dispatcher")
            await w.until(lambda: _nodes(w, 2))
            await w.next_look()
            assert told[-1] == 2
            await second.close()
            await w.next_look()
            assert told[-1] == 1

    asyncio.run(story())


async def _nodes(w: World, count: int) -> bool:
    return len(await w.store.nodes()) == count


# --- the registry -------------------------------------------------------------------------------


def a_registry(store: Any, clock: ManualClock, **more: Any) -> Registry:
    node = Node("me", "me", tuple(Role), "1", clock.now(), 0, 0)
    return Registry(store, clock, node, LEASE, lambda: {"tea": TEA.encode()}, lambda: False, **more)


def test_a_node_beats_four_times_within_its_lease_and_leaves_at_the_end(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            store = Shaky(w.store)
            registry = a_registry(store, w.clock)
            beating = asyncio.create_task(registry.run())
            for n in range(1, 6):
                await w.until(lambda n=n: asyncio.sleep(0, store.asked.count("beat") == n))
                now = w.clock.now()

                async def noted(now: int = now) -> list[Node]:
                    return [node for node in await w.store.nodes() if node.seen_at == now]

                [node] = await w.until(noted)
                assert (node.until, node.crews) == (now + LEASE, ("tea",))
                await at_rest(w.store)  # what can be read by others may not have been told to itself yet
                w.clock.advance(LEASE // 4 - 1)
                await at_rest(w.store)
                assert store.asked.count("beat") == n
                w.clock.advance(1)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await registry.leave()
            assert await w.store.nodes() == []
            assert [crew.name for crew in await w.store.published_crews()] == ["tea"]

    asyncio.run(story())


def test_a_node_that_was_away_says_so_once_when_it_is_back(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "crewcast.nodes")

    async def story():
        async with world(tmp_path) as w:
            store = Shaky(w.store)
            beating = asyncio.create_task(a_registry(store, w.clock).run())
            await w.until(w.store.nodes)
            await at_rest(w.store)
            store.down = True
            w.clock.advance(LEASE + 2 * SECOND)
            await w.until(lambda: asyncio.sleep(0, store.asked.count("beat") > 1))
            await at_rest(w.store)
            store.down = False
            caplog.clear()
            for _ in range(3):
                asked = store.asked.count("beat")
                w.clock.advance(max(AGAIN, LEASE // 4))
                await w.until(lambda asked=asked: asyncio.sleep(0, store.asked.count("beat") > asked))
                await w.until(lambda: _is_alive(w))
                await at_rest(w.store)
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    asyncio.run(story())
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("this node was away: its lease ended 17.0 s ago")


async def _is_alive(w: World) -> bool:
    return all(node.alive(w.clock.now()) for node in await w.store.nodes())


def test_a_node_that_comes_back_after_a_crash_is_listed_once(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            await w.worker("me", tea=TEA)
            await w.worker("other", tea=TEA)
            registry = a_registry(w.store, w.clock)
            await registry.clear()
            await registry.beat()
            # One that is alive and has the same name is another one, who knows.
            assert [node.id for node in await w.store.nodes()] == ["id-me", "me", "id-other"]
            w.clock.advance(LEASE)
            again = Node("again", "me", tuple(Role), "1", w.clock.now(), 0, 0)
            registry = Registry(w.store, w.clock, again, LEASE, dict, lambda: False)
            await registry.clear()
            await registry.beat()
            assert [node.id for node in await w.store.nodes()] == ["again", "id-other"]

    asyncio.run(story())


def test_who_holds_the_store_alone_was_never_away(tmp_path, caplog):
    async def story():
        async with world(tmp_path) as w:
            await w.worker("an earlier process of this server", until=w.clock.now() + DAY)
            registry = a_registry(w.store, w.clock, alone=True)
            await registry.clear()
            assert await w.store.nodes() == []
            await registry.beat()
            w.clock.advance(9 * LEASE)
            await registry.beat()

    asyncio.run(story())
    assert caplog.records == []


def test_a_lapsed_node_and_a_crew_are_forgotten_after_a_day(tmp_path):
    async def story():
        async with world(tmp_path) as w:
            await w.worker("gone", cake=TEA)
            registry = a_registry(w.store, w.clock)
            w.clock.advance(KNOWN_FOR + LEASE)
            await registry.beat()
            assert [node.name for node in await w.store.nodes()] == ["gone", "me"]
            w.clock.advance(1)
            await registry.beat()
            assert [node.name for node in await w.store.nodes()] == ["me"]
            assert [crew.name for crew in await w.store.published_crews()] == ["tea"]

    asyncio.run(story())


def test_what_is_known_of_others_stays_while_the_store_is_out_of_reach(tmp_path, caplog):
    async def story():
        async with world(tmp_path) as w:
            store = Shaky(w.store)
            directory = Directory(store, w.clock)
            await w.worker("kitchen", tea=TEA)
            looking = asyncio.create_task(directory.run())
            await w.until(lambda: asyncio.sleep(0, directory.takes("tea")))
            store.down = True
            await w.next_look()
            assert directory.takes("tea")
            store.down = False
            await w.worker("bakery", cake=TEA)
            await w.next_look()
            assert sorted(directory.crews) == ["cake", "tea"]
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    asyncio.run(story())
    assert len([one for one in caplog.records if "other nodes cannot be seen" in one.getMessage()]) == 1


def test_a_worker_needs_a_project_and_others_do_not():
    from crewcast.cli.serving import _arguments

    with pytest.raises(UsageError, match="name a project"):
        _arguments(config.load("serve", {}, {}), [])
    assert _arguments(config.load("dev", {}, {}), []) == ["."]
