"""Whatever a URL looks like and whatever its name resolves to: nothing on this machine is reached.

Listeners on many loopback addresses count every connection. The policy is production's, and besides it the
same with plain http, so that it is never the scheme alone that saves us.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crewcast.core import url
from crewcast.dispatch.egress import Address, EgressPolicy
from crewcast.dispatch.proxy import Proxy
from crewcast.dispatch.resolver import ThreadResolver
from crewcast.dispatch.sender import Sender, SenderLimits
from tests.contract.sender.forms import NO_ADDRESS, NO_PLACE, NO_URL
from tests.contract.sender.listeners import LOOPBACKS, Listeners, recorded
from tests.contract.sender.subscriber import DEV, HEADERS, FakeResolver

PRODUCTION = EgressPolicy()
HTTP = EgressPolicy(allow_http=True)
PUBLIC4, PUBLIC6 = "93.184.216.34", "2606:4700:4700::1111"


@pytest.fixture
def nobody(listeners: Listeners) -> Iterator[int]:
    """The listeners' port, to which nobody may have come afterwards."""
    assert listeners.visitors() == []
    yield listeners.port
    assert listeners.visitors() == []


def inward(host: str, port: int) -> list[Address]:
    """A hostile resolver: what the system reads as an address is one, and every name leads inward."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return [ipaddress.ip_address(str(info[4][0])) for info in found]
    except socket.gaierror:
        return [ipaddress.ip_address(address) for address in LOOPBACKS]


async def _kinds(link: str) -> set[str]:
    """What production makes of a URL, and what it would make of it if http were allowed."""
    kinds = set()
    for policy, scheme in ((PRODUCTION, "https"), (HTTP, "https"), (HTTP, "http")):
        try:
            target = url.parse(link.replace("https", scheme, 1))
        except ValueError:
            kinds.add("invalid")
            continue
        kinds.add("refused" if policy.check_url(target) else "accepted")
        sender = Sender(policy, limits=SenderLimits(total=5), resolver=ThreadResolver(lookup=inward))
        kinds.add((await sender.post(target, HEADERS, b"{}")).kind)
        await sender.close()
    return kinds


def test_there_are_many_forms():
    forms = [*NO_URL, *NO_PLACE, *NO_ADDRESS]
    assert len(forms) == len(set(forms)) >= 200


def test_the_listeners_count(listeners):
    """That nobody comes says something only if somebody could."""
    assert listeners.visitors() == []

    async def scenario():
        sender = Sender(DEV, resolver=ThreadResolver(lookup=inward))
        for address in LOOPBACKS:
            host = f"[{address}]" if ":" in address else address
            for scheme in ("http", "https"):
                target = url.parse(f"{scheme}://{host}:{listeners.port}/")
                assert not (await sender.post(target, HEADERS, b"")).accepted
        assert not (await sender.post(url.parse(f"http://x:{listeners.port}/"), HEADERS, b"")).accepted
        await sender.close()

    asyncio.run(scenario())
    assert sorted(listeners.visitors()) == sorted([*LOOPBACKS * 2, "127.0.0.1"])


@pytest.mark.parametrize("form", NO_URL)
def test_what_is_no_url(form, nobody):
    assert asyncio.run(_kinds(form.format(port=nobody))) == {"invalid"}


@pytest.mark.parametrize("host", NO_PLACE)
def test_an_address_in_any_spelling(host, nobody):
    assert asyncio.run(_kinds(f"https://{host}:{nobody}/")) == {"refused", "blocked"}


@pytest.mark.parametrize("host", NO_ADDRESS)
def test_a_name_that_leads_inward(host, nobody):
    assert asyncio.run(_kinds(f"https://{host}:{nobody}/")) == {"accepted", "blocked"}


@pytest.mark.parametrize("host", [*NO_PLACE, *NO_ADDRESS])
def test_none_of_them_is_asked_of_a_proxy(host, nobody):
    """The listeners play the proxy."""

    async def scenario():
        for policy, scheme in ((PRODUCTION, "https"), (HTTP, "http")):
            sender = Sender(policy, resolver=ThreadResolver(lookup=inward), proxy=Proxy("127.0.0.1", nobody))
            target = url.parse(f"{scheme}://{host}:{nobody}/")
            assert (await sender.post(target, HEADERS, b"{}")).kind == "blocked"
            await sender.close()

    asyncio.run(scenario())


# --- whatever hypothesis thinks of --------------------------------------------------------------


def _public(address: Address) -> bool:
    """Said anew, without the tables: by the standard library's registry and the shape of the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and int(address) != 0xA83F8110
    if address.sixtofour or address.teredo or address.ipv4_mapped or address.scope_id:
        return False
    return address.is_global and int(address) >> 125 == 1 and int(address) >> 32 & 0xFDFFFFFF != 0x5EFE


_HOSTS = st.one_of(
    st.sampled_from([*NO_PLACE, *NO_ADDRESS]),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.integers(0, 2**32 - 1).map(lambda n: f"[::ffff:{ipaddress.IPv4Address(n)}]"),
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.integers(0, 2**33).map(lambda n: f"0{n:o}"),
    st.text("0123456789abcdefx.:[]%@-\uff10\uff11\u3002\u24db", min_size=1, max_size=20),
    st.text(min_size=1, max_size=12),
)
_INNER = st.one_of(
    st.ip_addresses(),
    st.sampled_from([*LOOPBACKS, PUBLIC4, PUBLIC6, "10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]).map(
        ipaddress.ip_address
    ),
    st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv6Address(0x2002 << 112 | n << 80)),
    st.integers(0, 2**64 - 1).map(lambda n: ipaddress.IPv6Address(0x20010000 << 96 | n)),
    st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv6Address(0x2A00 << 112 | 0x5EFE << 32 | n)),
)


@given(
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTPS"]),
        _HOSTS,
        st.sampled_from(["", ":443", ":80", ":99999", "."]),
        st.sampled_from(["", "/", "/a?b", "\\@x", "@127.0.0.1"]),
    ),
    st.lists(_INNER, max_size=4),
    st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_what_a_url_may_be_and_the_guard_allows_never_leads_inward(link, addresses, http):
    try:
        target = url.parse(link)
    except ValueError:
        return

    async def scenario() -> str:
        resolver = FakeResolver([str(address) for address in addresses])
        sender = Sender(EgressPolicy(allow_http=http), resolver=resolver)
        outcome = await sender.post(target, HEADERS, b"")
        await sender.close()
        return outcome.kind

    with recorded() as reached:
        kind = asyncio.run(scenario())
    assert all(map(_public, reached)), reached
    assert kind in ("blocked", "dns") or reached
