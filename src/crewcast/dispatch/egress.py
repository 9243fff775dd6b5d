"""Where a webhook may go: public addresses only, unless the operator says otherwise.

Webhook URLs come with the kickoff, so whoever may start a run could point the server at the network
behind it. The rules here are pure; the sender asks them about every address it is about to connect to.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from crewcast.core.url import Target, is_numeric, parse

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry, and what clouds put on public-looking addresses.
_REFUSED4 = (
    ("0.0.0.0/8", "an unspecified address"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a shared (carrier-grade NAT) address"),
    ("127.0.0.0/8", "a loopback address"),
    ("168.63.129.16/32", "a cloud metadata address"),  # Azure's wire server, the same in every region
    ("169.254.169.254/32", "a cloud metadata address"),
    ("169.254.0.0/16", "a link-local address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "a reserved address"),
    ("192.0.2.0/24", "a documentation address"),
    ("192.88.99.0/24", "a 6to4 relay address"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "a benchmarking address"),
    ("198.51.100.0/24", "a documentation address"),
    ("203.0.113.0/24", "a documentation address"),
    ("224.0.0.0/4", "a multicast address"),
    ("255.255.255.255/32", "the broadcast address"),
    ("240.0.0.0/4", "a reserved address"),
)
# https://www.iana.org/assignments/iana-ipv6-special-registry. The first rows only name what the last
# rule refuses anyway: everything outside 2000::/3.
_REFUSED6 = (
    ("::1/128", "a loopback address"),
    ("::/128", "an unspecified address"),
    ("::ffff:0:0/96", "an IPv4 address in an IPv6 one"),
    ("::ffff:0:0:0/96", "an IPv4 address in an IPv6 one"),
    ("::/96", "an IPv4 address in an IPv6 one"),
    ("64:ff9b::/96", "an IPv4 address behind NAT64"),
    ("64:ff9b:1::/48", "an IPv4 address behind NAT64"),
    ("100::/64", "a discard address"),
    ("fd00:ec2::254/128", "a cloud metadata address"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a private address"),
    ("ff00::/8", "a multicast address"),
    ("2001::/32", "an IPv4 address behind Teredo"),
    ("2001::/23", "a reserved address"),
    ("2001:db8::/32", "a documentation address"),
    ("2002::/16", "an IPv4 address behind 6to4"),
    ("3fff::/20", "a documentation address"),
    ("5f00::/16", "a segment routing address"),
)
_TABLE4 = tuple((IPv4Network(network), reason) for network, reason in _REFUSED4)
_TABLE6 = tuple((IPv6Network(network), reason) for network, reason in _REFUSED6)
_GLOBAL6 = IPv6Network("2000::/3")
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# The interface identifiers of ISATAP (RFC 5214, 6.1), which carry an IPv4 address behind any prefix.
_ISATAP = (0x00005EFE, 0x02005EFE)


# Where IPv6 addresses have an IPv4 address in them, and how many bits stand behind it.
_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("::ffff:0:0:0/96"), 0),
    (IPv6Network("::/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """What the operator adds to the rule and takes from it.

    `allow` are networks that may be reached besides the public ones, `deny` networks that may not
    be reached whatever else is said. A name in `allow_hosts` (lower-case; `*.example.com` is every
    name below example.com, not itself) may have any address outside `deny`: the check of its
    addresses is what is lifted, and nothing else. `allow_http` is a matter of its own: no list makes
    plain http acceptable. An IPv6 address that carries an IPv4 address is judged as both.
    """

    allow_http: bool = False
    allow_loopback: bool = False
    allow: tuple[Network, ...] = ()
    allow_hosts: tuple[str, ...] = ()
    deny: tuple[Network, ...] = ()

    def check_address(self, address: Address, host: str) -> str | None:
        """Why `host` may not be reached at `address`; None if it may."""
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return f"goes to {address}, an address with a zone id"
        inner = carried(address)
        shown = f"{address} ({', '.join(map(str, inner))})" if inner else f"{address}"
        if any(_holds(network, each) for each in (address, *inner) for network in self.deny):
            return f"goes to {shown}, which the operator denies"
        if self.trusts(host):
            return None
        what = next(filter(None, map(self._unwelcome, (address, *inner))), None)
        return what and f"goes to {shown}, {what}; webhooks go to public addresses only"

    def check_url(self, target: Target) -> str | None:
        """Why a kickoff may not name `target`, as far as that can be said without DNS; None if it may."""
        if target.scheme != "https" and not (self.allow_http and target.scheme == "http"):
            return "is not https"
        host = target.host.lower().removesuffix(".")
        if self.trusts(host):
            return None
        if host == "localhost" or host.endswith(".localhost"):
            return None if self.allow_loopback else "goes to this machine itself"
        try:
            address = literal(host)
        except ValueError as e:
            return str(e)
        return None if address is None else self.check_address(address, host)

    def trusts(self, host: str) -> bool:
        """Whether the operator vouches for whatever address this name has."""
        return any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name for name in self.allow_hosts
        )

    def _unwelcome(self, address: Address) -> str | None:
        if any(_holds(network, address) for network in self.allow):
            return None
        if self.allow_loopback and any(_holds(network, address) for network in _LOOPBACK):
            return None
        return special(address)


def host_pattern(text: str) -> str:
    """`name` or `*.name` as `EgressPolicy.allow_hosts` has it; raises ValueError for anything else."""
    wild = "*." if text.startswith("*.") else ""
    name = text.removeprefix(wild)
    if set(name) & set(":/?#@[]"):
        raise ValueError("must be host names or *.NAME, without scheme, port and path")
    try:
        host = parse(f"https://{name}").host
    except ValueError as e:
        raise ValueError(f"must be host names or *.NAME: one {e}") from None
    if literal(host) is not None:
        raise ValueError("must be host names; addresses belong in allow_networks")
    return wild + host


def literal(host: str) -> Address | None:
    """The address that `host` spells out, None for a name.

    Raises ValueError for what some resolver would take for an address although it is not one in the
    usual spelling (`127.1`, `0x7f000001`, `017700000001`): two readings of one URL are one too many.
    """
    host = host.removeprefix("[").removesuffix("]")
    if not host.isascii():
        raise ValueError("has a host name that is not valid")
    if "%" in host:
        raise ValueError("has an address with a zone id")
    if ":" not in host and not is_numeric(host):
        return None
    try:
        return ip_address(host)
    except ValueError as e:
        raise ValueError("has an address in an unusual spelling") from e


def carried(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that something on the way may send a packet for `address` to.

    What hides one in the public range (NAT64 with a prefix of the network's own) cannot be known
    here: that prefix belongs in `deny`.
    """
    if isinstance(address, IPv4Address) or int(address) <= 1:
        return ()
    bits = int(address)
    if address in _TEREDO:  # its server, and its client (RFC 4380, 4)
        return IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF)
    if address in _LOCAL_NAT64:
        # Where the address stands is the network's choice (RFC 6052, 2.2). At the end it is found;
        # for the rest one that is never allowed stands in.
        return (IPv4Address(bits & 0xFFFFFFFF if bits >> 32 & 0xFFFFFFFF == 0 else 0),)
    for network, behind in _CARRIERS:
        if address in network:
            return (IPv4Address(bits >> behind & 0xFFFFFFFF),)
    return (IPv4Address(bits & 0xFFFFFFFF),) if bits >> 32 & 0xFFFFFFFF in _ISATAP else ()


def special(address: Address) -> str | None:
    """What makes an address none of the public ones, in words; None for one of those."""
    if isinstance(address, IPv4Address):
        for network4, what in _TABLE4:
            if address in network4:
                return what
    else:
        for network6, what in _TABLE6:
            if address in network6:
                return what
        if address not in _GLOBAL6:
            return "an address outside the public range"
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
            return "an IPv4 address behind ISATAP"
    # What a newer registry in the standard library knows and the tables here don't.
    return None if address.is_global else "a special-purpose address"


def _holds(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network
