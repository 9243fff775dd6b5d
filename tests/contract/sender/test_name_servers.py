"""Names that lead inward, change their mind, hang or lie: a real name server, asked by the system's own resolver."""

import asyncio
import ipaddress

import pytest

from crewcast.core import url
from crewcast.dispatch.egress import EgressPolicy
from crewcast.dispatch.resolver import ThreadResolver
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.listeners import recorded
from tests.contract.sender.names import NXDOMAIN, SERVFAIL, NameServer, Reply, can_turn
from tests.contract.sender.subscriber import HEADERS

HTTP = EgressPolicy(allow_http=True)
PUBLIC4, PUBLIC6 = "93.184.216.34", "2606:4700:4700::1111"
pytestmark = pytest.mark.skipif(
    not can_turn(), reason="the system's resolver cannot be turned to another server"
)


async def _posts(
    server: NameServer, count: int, policy: EgressPolicy = HTTP, resolve: float = 50
) -> list[str]:
    sender = Sender(
        policy, limits=SenderLimits(resolve=resolve), resolver=ThreadResolver(lookup=server.lookup)
    )
    target = url.parse("http://hooks.example/")
    outcomes = [await sender.post(target, HEADERS, b"") for _ in range(count)]
    await sender.close()
    return [outcome.kind for outcome in outcomes]


def test_the_address_that_was_checked_is_the_one_that_is_connected_to():
    """Public first and private later, with a TTL of 0: each connect has one lookup, and uses what it said."""

    def answers(name: str, kind: str, n: int) -> Reply:
        return [(name, "A", PUBLIC4 if n <= 2 else "127.0.0.1")] if kind == "A" else []

    with NameServer(answers) as server, recorded() as reached:
        assert asyncio.run(_posts(server, 4)) == ["refused", "refused", "blocked", "blocked"]
        assert [str(address) for address in reached] == [PUBLIC4, PUBLIC4]
        assert server.asked["hooks.example", "A"] == 4
        assert server.asked["hooks.example", "AAAA"] == 4


def test_a_name_that_changes_with_every_question():
    """Public to each first question and private to each second: a check by itself would be passed each time."""

    def answers(name: str, kind: str, n: int) -> Reply:
        inner = {"A": "127.0.0.1", "AAAA": "::1"}[kind]
        return [(name, kind, {"A": PUBLIC4, "AAAA": PUBLIC6}[kind] if n % 2 else inner)]

    with NameServer(answers) as server, recorded() as reached:
        assert asyncio.run(_posts(server, 6)) == ["refused", "blocked"] * 3
        assert {str(address) for address in reached} == {PUBLIC4, PUBLIC6}
        assert server.asked["hooks.example", "A"] == 6


def test_rebinding_against_real_listeners(listeners):
    """127.0.0.1 plays the public address."""
    assert listeners.visitors() == []

    async def scenario(server: NameServer) -> list[str]:
        policy = EgressPolicy(allow_http=True, allow=(ipaddress.ip_network("127.0.0.1/32"),))
        sender = Sender(
            policy, limits=SenderLimits(resolve=50), resolver=ThreadResolver(lookup=server.lookup)
        )
        target = url.parse(f"http://hooks.example:{listeners.port}/")
        kinds = [(await sender.post(target, HEADERS, b"")).kind for _ in range(3)]
        await sender.close()
        return kinds

    def answers(name: str, kind: str, n: int) -> Reply:
        return [(name, "A", "127.0.0.1" if n == 1 else "127.0.0.2")] if kind == "A" else [(name, kind, "::1")]

    with NameServer(answers) as server:
        first, *others = asyncio.run(scenario(server))
    assert first in ("closed", "reset")  # it was reached: the listeners hang up
    assert others == ["blocked", "blocked"]
    assert listeners.visitors() == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("a", "aaaa", "used"),
    [
        ([PUBLIC4], ["::1"], [PUBLIC4]),
        ([PUBLIC4], ["::ffff:127.0.0.1"], [PUBLIC4]),
        (["127.0.0.1"], [PUBLIC6], [PUBLIC6]),
        (["10.0.0.1", PUBLIC4, "127.0.0.1"], ["fe80::1", "fd00::1"], [PUBLIC4]),
        (["127.0.0.1"], ["::1"], []),
        (["0.0.0.0"], ["::"], []),
        (["169.254.169.254"], ["fd00:ec2::254"], []),
        ([], ["64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::"], []),
        (["127.0.0.1"] * 30 + [PUBLIC4], [], [PUBLIC4]),
    ],
)
def test_of_mixed_answers_the_public_ones_alone_are_used(a, aaaa, used):
    def answers(name: str, kind: str, n: int) -> Reply:
        return [(name, kind, data) for data in {"A": a, "AAAA": aaaa}[kind]]

    with NameServer(answers) as server, recorded() as reached:
        assert asyncio.run(_posts(server, 1)) == ["refused" if used else "blocked"]
        assert [str(address) for address in reached] == used


@pytest.mark.parametrize("end", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
def test_an_alias_of_an_inner_name(end):
    def answers(name: str, kind: str, n: int) -> Reply:
        chain = [(name, "CNAME", "cdn.example"), ("cdn.example", "CNAME", "metadata.internal")]
        return [*chain, ("metadata.internal", "A", end)] if kind == "A" else chain

    with NameServer(answers) as server, recorded() as reached:
        assert asyncio.run(_posts(server, 1)) == ["blocked"]
        assert reached == []


BROKEN: dict[str, tuple[Reply, str]] = {
    "no such name": (NXDOMAIN, "dns"),
    "a server that failed": (SERVFAIL, "dns"),
    "a name without addresses": ([], "dns"),
    "an alias of itself": ([("hooks.example", "CNAME", "hooks.example")], "dns"),
    "an alias of localhost": ([("hooks.example", "CNAME", "localhost")], "dns"),
    "somebody else's address": ([("other.example", "A", PUBLIC4)], "dns"),
    "garbage": (b"ID" + bytes(range(200)), "dns"),
    "a head alone": (b"ID\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00", "dns"),
    "another question's answer": (b"XX\x81\x80" + bytes(20), "dns"),
    "a pointer to itself": (b"ID\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01", "dns"),
    "cut, come by TCP": (b"ID\x83\x80\x00\x01\x00\x00\x00\x00\x00\x00", "dns"),
    "silence": (None, "timeout:resolve"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_answers_that_are_none(name):
    reply, kind = BROKEN[name]
    with NameServer(lambda *_: reply, patience=1) as server, recorded() as reached:
        assert asyncio.run(_posts(server, 1, resolve=0.3 if reply is None else 50)) == [kind]
        assert reached == []
    assert server.asked["hooks.example", "A"] >= 1


def test_names_that_hang_leave_the_others_alone():
    def answers(name: str, kind: str, n: int) -> Reply:
        if name.startswith("hangs"):
            return None
        return [(name, "A", PUBLIC4)] if kind == "A" else []

    async def scenario(server: NameServer) -> list[str]:
        resolver = ThreadResolver(threads=4, lookup=server.lookup)
        sender = Sender(HTTP, limits=SenderLimits(resolve=0.2), resolver=resolver)
        # Gives up long before the system's resolver lets go of a name that hangs.
        other = Sender(HTTP, limits=SenderLimits(resolve=server.patience / 2), resolver=resolver)
        targets = [url.parse(f"http://hangs{n}.example/") for n in range(8)]
        await asyncio.gather(*(sender.post(target, HEADERS, b"") for target in targets))
        while resolver._given:
            server.release()
            await asyncio.sleep(0.005)
        # From here they are known.
        hanging = [asyncio.ensure_future(sender.post(target, HEADERS, b"")) for target in targets]
        await asyncio.sleep(0)
        kinds = [(await other.post(url.parse(f"http://n{n}.example/"), HEADERS, b"")).kind for n in range(20)]
        kinds += [(await post).kind for post in hanging]
        await sender.close()
        await other.close()
        return kinds

    with NameServer(answers) as server, recorded():
        assert asyncio.run(scenario(server)) == ["refused"] * 20 + ["timeout:resolve"] * 8
