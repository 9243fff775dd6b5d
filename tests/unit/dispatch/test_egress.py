import ipaddress
import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core import url
from crewcast.core.url import Target
from crewcast.dispatch.egress import EgressPolicy, carried, host_pattern, literal, special

STRICT = EgressPolicy()
DEV = EgressPolicy(allow_http=True, allow_loopback=True)

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "3ffe::1",
]
REFUSED = {
    "0.0.0.0": "unspecified",
    "0.255.255.255": "unspecified",
    "10.0.0.1": "private",
    "10.255.255.255": "private",
    "100.64.0.1": "carrier-grade",
    "100.100.100.200": "carrier-grade",  # a cloud's metadata
    "100.127.255.255": "carrier-grade",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "metadata",
    "169.254.170.2": "link-local",  # container credentials
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "reserved",
    "192.0.0.192": "reserved",  # a cloud's metadata
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.0.1": "private",
    "192.168.255.255": "private",
    "198.18.0.1": "benchmarking",
    "198.19.255.255": "benchmarking",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.254": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::7f00:1": "IPv4 address in",  # compatible
    "::8.8.8.8": "IPv4 address in",
    "::ffff:127.0.0.1": "IPv4 address in",  # mapped
    "::ffff:10.0.0.1": "IPv4 address in",
    "::ffff:8.8.8.8": "IPv4 address in",
    "::ffff:0:127.0.0.1": "IPv4 address in",  # translated
    "64:ff9b::127.0.0.1": "NAT64",
    "64:ff9b::8.8.8.8": "NAT64",
    "64:ff9b:1::10.0.0.1": "NAT64",
    "64:ff9b:1:ffff::1": "NAT64",
    "100::1": "discard",
    "200::1": "outside the public range",
    "1fff::1": "outside the public range",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:1::1": "reserved",
    "2001:2::1": "reserved",  # benchmarking
    "2001:10::1": "reserved",  # ORCHID
    "2001:20::1": "reserved",
    "2001:db8::1": "documentation",
    "2002:7f00:1::": "6to4",
    "2002:808:808::1": "6to4",
    "3fff::1": "documentation",
    "4000::1": "outside the public range",
    "5f00::1": "segment routing",
    "6000::1": "outside the public range",
    "fc00::1": "private",
    "fd00:ec2::254": "metadata",
    "fdff::1": "private",
    "fe80::1": "link-local",
    "febf::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
    "2a00::5efe:7f00:1": "ISATAP",
    "2a00::200:5efe:a00:1": "ISATAP",
}


# What other webhook senders and egress proxies refuse, each list as it is there. Ours is the union.
PEERS = {
    "Svix": """10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 127.0.0.0/8 169.254.0.0/16 255.255.255.255/32
        224.0.0.0/4 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 100.64.0.0/10 192.0.0.0/24 192.88.99.0/24
        240.0.0.0/4 198.18.0.0/15 0.0.0.0/8 ff00::/8 ::1/128 ::/128 fe80::/10 fc00::/7 2001:db8::/32 3fff::/20
        100::/64 2002::/16 64:ff9b::/96 64:ff9b:1::/48 5f00::/16 ::ffff:127.0.0.0/104 ::ffff:10.0.0.0/104""",
    "Convoy": """169.254.0.0/16 fe80::/10 ff02::/16 fd00:ec2::254/128 ::ffff:169.254.0.0/112
        64:ff9b::169.254.0.0/112 2002:a9fe::/32""",
    "Smokescreen": """10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 127.0.0.0/8 100.64.0.0/10 224.0.0.0/4
        0.0.0.0/32 255.255.255.255/32 169.254.0.0/16 2001::/32 64:ff9b::/96 2002::/16""",
    "what none of them has": "::/96 fec0::/10 ::ffff:0:0:0/96 168.63.129.16/32 2001::/23 ::/3 4000::/2 8000::/1",
}


@pytest.mark.parametrize("peer", PEERS)
@given(roll=st.randoms(use_true_random=False))
def test_what_a_peer_refuses_is_refused(peer, roll):
    for text in PEERS[peer].split():
        network = ip_network(text)
        inside = roll.randrange(network.num_addresses)
        for address in (network[0], network[-1], network[inside]):
            assert special(address) is not None, address


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text):
    assert STRICT.check_address(ip_address(text), "example.com") is None


@pytest.mark.parametrize(("text", "what"), REFUSED.items())
def test_all_others_are_refused_and_named(text, what):
    reason = STRICT.check_address(ip_address(text), "example.com")
    assert reason is not None
    assert what in reason


@pytest.mark.parametrize("text", [*PUBLIC, *REFUSED])
def test_a_literal_in_a_url_is_judged_like_a_resolved_address(text):
    host = f"[{text}]" if ":" in text else text
    refused = STRICT.check_url(url.parse(f"https://{host}/hook"))
    assert (refused is not None) == (text in REFUSED)


# As an attacker may write them; most are refused by `url.parse` already, here they come past it.
ODD_HOSTS = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "hooks.localhost",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F.1",
    "0x7f.0x0.0x0.0x1",
    "017700000001",
    "0177.0.0.01",
    "127.0.0.1.",
    "127.0.0.01",
    "0",
    "0x",
    "10.1",
    "4294967295",
    "4294967296",
    "999.999.999.999",
    "134744072",  # 8.8.8.8: allowed as an address, refused in this spelling
    "1.2.3.4.5",
    "foo.0x10",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127。0。0。1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0:0:0:0:0:0:0:1",
    "::ffff:7f00:1",
    "fe80::1%eth0",
    "fe80::1%25eth0",
    "2606:4700::1%1",
    "8.8.8.8%1",
    "::1::",
    "1:2",
]


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_odd_spellings_are_refused(host):
    assert STRICT.check_url(Target("https", host, 443, "/"))


@pytest.mark.parametrize(
    "host", ["example.com", "a-1.example", "0x7f.example", "1.example", "localhost.example", "x"]
)
def test_names_are_left_to_the_connect(host):
    assert STRICT.check_url(Target("https", host, 443, "/")) is None


def test_schemes():
    assert STRICT.check_url(url.parse("http://example.com/")) == "is not https"
    assert DEV.check_url(url.parse("http://example.com/")) is None
    assert DEV.check_url(Target("ftp", "example.com", 21, "/"))


def test_dev_reaches_this_machine_and_nothing_else_private():
    for text in ("http://localhost:9/", "http://a.localhost/", "http://127.0.0.1/", "http://[::1]/"):
        assert DEV.check_url(url.parse(text)) is None
    for text, what in REFUSED.items():
        allowed = DEV.check_address(ip_address(text), "example.com") is None
        assert allowed == (what == "loopback")


def test_allowed_networks():
    policy = EgressPolicy(allow=(ip_network("10.1.0.0/16"), ip_network("fd00::/64")))
    for text, fine in {
        "10.1.2.3": True,
        "10.2.2.3": False,
        "::ffff:10.1.2.3": False,
        "fd00::7": True,
        "fd00:0:0:1::7": False,
        "127.0.0.1": False,
        "8.8.8.8": True,
    }.items():
        assert (policy.check_address(ip_address(text), "x") is None) == fine, text
    assert policy.check_url(url.parse("https://10.1.2.3/")) is None
    assert policy.check_url(url.parse("http://10.1.2.3/")) == "is not https"


CARRIERS = {
    "::ffff:10.1.2.3": ["10.1.2.3"],
    "::ffff:0:10.1.2.3": ["10.1.2.3"],
    "::10.1.2.3": ["10.1.2.3"],
    "64:ff9b::10.1.2.3": ["10.1.2.3"],
    "64:ff9b:1::10.1.2.3": ["10.1.2.3"],
    "64:ff9b:1:ffff::10.1.2.3": ["10.1.2.3"],
    "64:ff9b:1:0:a:102:300:0": ["0.0.0.0"],  # somewhere else in it: not to be judged, so not allowed
    "2002:a01:203::1": ["10.1.2.3"],
    "2001:0:808:808:8000:63bf:f5fe:fdfc": ["8.8.8.8", "10.1.2.3"],
    "2a00::5efe:10.1.2.3": ["10.1.2.3"],
    "fe80::200:5efe:10.1.2.3": ["10.1.2.3"],
    "::1": [],
    "::": [],
    "2a00::10.1.2.3": [],
    "10.1.2.3": [],
}


@pytest.mark.parametrize(("text", "inner"), CARRIERS.items())
def test_the_ipv4_address_in_an_ipv6_one_is_found(text, inner):
    assert [str(address) for address in carried(ip_address(text))] == inner


@pytest.mark.parametrize("text", [text for text, inner in CARRIERS.items() if "10.1.2.3" in inner])
def test_an_allowed_network_does_not_allow_the_ipv4_addresses_in_it(text):
    address = ip_address(text)
    everything6 = EgressPolicy(allow=(ip_network("::/0"),))
    assert f"({', '.join(CARRIERS[text])}), a private address" in (
        everything6.check_address(address, "x") or ""
    )
    both = EgressPolicy(allow=(ip_network("::/0"), ip_network("10.1.0.0/16")))
    assert both.check_address(address, "x") is None
    four = EgressPolicy(allow=(ip_network("10.1.0.0/16"),))
    assert four.check_address(address, "x") is not None


def test_an_allowed_nat64_leads_to_public_addresses():
    policy = EgressPolicy(allow=(ip_network("64:ff9b::/96"),))
    assert policy.check_address(ip_address("64:ff9b::8.8.8.8"), "x") is None
    for text in ("64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8"):
        assert policy.check_address(ip_address(text), "x") is not None


def test_a_denied_network_wins():
    policy = EgressPolicy(
        allow_loopback=True,
        allow=(ip_network("::/0"), ip_network("10.0.0.0/8")),
        allow_hosts=("receiver",),
        deny=(ip_network("10.1.0.0/16"), ip_network("2a00:64::/96"), ip_network("8.8.8.0/24")),
    )
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2a00:64::7f00:1", "8.8.8.8"):
        for host in ("x", "receiver"):
            assert "denies" in (policy.check_address(ip_address(text), host) or ""), text
    for text in ("10.2.2.3", "8.8.9.8", "2a00:64:0:0:0:1::", "64:ff9b::10.2.2.3", "127.0.0.1"):
        assert policy.check_address(ip_address(text), "x") is None, text
    assert "denies" in (policy.check_url(url.parse("https://8.8.8.8/")) or "")


def test_a_host_pattern_is_every_name_below_and_not_itself():
    policy = EgressPolicy(allow_hosts=("receiver", "*.inner.example"))
    inner = ip_address("10.0.0.1")
    for host, fine in {
        "receiver": True,
        "a.receiver": False,
        "receiver.example": False,
        "inner.example": False,
        "a.inner.example": True,
        "a.b.inner.example": True,
        "ainner.example": False,
        "inner.example.evil.example": False,
    }.items():
        assert policy.trusts(host) == fine, host
        assert (policy.check_address(inner, host) is None) == fine, host
    assert policy.check_url(url.parse("https://A.Inner.Example./")) is None
    assert policy.check_url(url.parse("http://a.inner.example/")) == "is not https"
    assert "zone id" in (policy.check_address(ip_address("fe80::1%eth0"), "receiver") or "")


def test_host_patterns_as_an_operator_writes_them():
    assert host_pattern("Receiver") == "receiver"
    assert host_pattern("*.Inner.Example.") == "*.inner.example"
    assert host_pattern("*.bücher.example") == "*.xn--bcher-kva.example"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.",
        "*.*.example",
        "a.*.example",
        "a*",
        "10.0.0.1",
        "::1",
        "[::1]",
        "a:80",
        "https://a",
        "a/b",
        "u@a",
        "*.1",
        "0x7f.1",
        "a b",
        "a..b",
        "a?b",
        "a#b",
    ],
)
def test_what_is_no_host_pattern(text):
    with pytest.raises(ValueError, match="must be host names"):
        host_pattern(text)


def test_allowed_hosts_may_be_anywhere():
    policy = EgressPolicy(allow_hosts=("receiver",))
    assert policy.check_url(url.parse("https://Receiver:8443/")) is None
    assert policy.check_address(ip_address("172.18.0.3"), "receiver") is None
    assert policy.check_address(ip_address("172.18.0.3"), "other") is not None
    assert policy.check_url(url.parse("http://receiver/")) == "is not https"


def test_a_zone_id_is_refused_even_in_an_allowed_network():
    policy = EgressPolicy(allow=(ip_network("fe80::/10"),))
    assert policy.check_address(ip_address("fe80::1"), "x") is None
    assert policy.check_address(ip_address("fe80::1%eth0"), "x") is not None


def test_literal():
    assert literal("example.com") is None
    assert literal("8.8.8.8") == ip_address("8.8.8.8")
    assert literal("[2001:db8::1]") == ip_address("2001:db8::1")


_ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv6Address(0xFFFF << 32 | n)),
    st.integers(0, 2**32 - 1).map(lambda n: ipaddress.IPv6Address(0x2002 << 112 | n << 80)),
)


@given(_ADDRESSES)
def test_never_allows_what_is_not_global(address):
    if STRICT.check_address(address, "example.com") is None:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
    if isinstance(address, ipaddress.IPv6Address) and address not in ip_network("2000::/3"):
        assert STRICT.check_address(address, "example.com") is not None


_NUMERIC_HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.builds(
        lambda parts, dot: ".".join(parts) + dot,
        st.lists(
            st.one_of(
                st.integers(0, 300).map(str),
                st.integers(0, 2**33).map(str),
                st.integers(0, 2**33).map(hex),
                st.integers(0, 2**33).map(lambda n: f"0{n:o}"),
                st.sampled_from(["", "0x", "00", "09", "localhost", "x", "\uff11", "\u2460"]),
            ),
            min_size=1,
            max_size=5,
        ),
        st.sampled_from(["", ".", "\u3002"]),
    ),
)


@given(_NUMERIC_HOSTS)
def test_what_the_system_reads_as_an_address_is_read_as_the_same_one(text):
    """Whatever spelling the resolver has of its own, it never sees one that the rule took for a name."""
    try:
        host = url.parse(f"https://[{text}]/" if ":" in text else f"https://{text}/").host
        ours = literal(host)
    except ValueError:
        return
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        assert ours is None
        return
    assert [ip_address(info[4][0]) for info in found] == [ours]


@given(_ADDRESSES, st.lists(st.ip_addresses().map(ip_network), max_size=2))
def test_a_wider_policy_allows_no_less(address, networks):
    wider = EgressPolicy(allow_loopback=True, allow=tuple(networks))
    if STRICT.check_address(address, "x") is None:
        assert wider.check_address(address, "x") is None
    elif wider.check_address(address, "x") is None:
        assert address.is_loopback or any(address in network for network in networks)


@given(st.text(max_size=30))
def test_check_url_never_raises_and_never_allows_an_inner_literal(host):
    reason = STRICT.check_url(Target("https", host, 443, "/"))
    try:
        address = ip_address(host)
    except ValueError:
        return
    assert (reason is None) == (STRICT.check_address(address, host) is None)
