import ipaddress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crewcast.core import url
from crewcast.core.url import Target
from crewcast.dispatch.egress import EgressPolicy, literal

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
    "5f00::1": "outside the public range",
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
