"""SSRF protection stays on; exactly the addresses of the ML backend are spared.

Label Studio refuses to call any private address, and a backend beside it has no other. Upstream's
only way out is to switch its list off and write one's own, by subnet and by hand. Here the list is
the same and stays complete; at every check the addresses that ``SSRF_ALLOWED_HOSTS`` resolve to at
that moment are cut out of it, so a backend made anew with another address is reached without a
restart, and its neighbours never are.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolver = Callable[[str], Iterable[str]]

#: The list inside ``core.utils.io.validate_ip`` of Label Studio 1.23.2. A test compares the two.
DEFAULT_BANNED: tuple[str, ...] = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "233.252.0.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:0000::/32",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)

#: Where containers, pods and LAN hosts live. An address outside is never spared, whatever the name
#: resolves to: not loopback, not link-local with the cloud's metadata, not multicast.
SPARABLE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)

#: Metadata services of clouds that put them into the ranges above (Alibaba, AWS over IPv6).
NEVER_SPARED: frozenset[Address] = frozenset(
    {IPv4Address("100.100.100.200"), IPv6Address("fd00:ec2::254")}
)

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")


def parse_hosts(text: str) -> tuple[str, ...]:
    """The names of a comma list.

    Raises:
        ValueError: an entry is no host name or address; the message tells which.
    """
    hosts = tuple(part.strip() for part in text.split(",") if part.strip())
    for host in hosts:
        if not _HOST.fullmatch(host) and not is_address(host):
            raise ValueError(
                f"SSRF_ALLOWED_HOSTS: found {host!r}, expected host names without scheme or port, "
                "such as backend"
            )
    return hosts


def parse_networks(entries: Iterable[str]) -> tuple[str, ...]:
    """The networks of ``USER_ADDITIONAL_BANNED_SUBNETS``, without blanks.

    Raises:
        ValueError: an entry is no network. Upstream would fail on every call it makes instead.
    """
    networks = tuple(entry.strip() for entry in entries if entry.strip())
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise ValueError(
                f"USER_ADDITIONAL_BANNED_SUBNETS: found {network!r}, expected a network such as "
                f"10.1.0.0/16: {error}"
            ) from None
    return networks


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def sparable(addresses: Iterable[str]) -> frozenset[Address]:
    """Those of ``addresses`` that may be spared at all."""
    found = set()
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:  # fe80::1%eth0, for one: link-local, so never spared
            continue
        if address not in NEVER_SPARED and any(address in network for network in SPARABLE):
            found.add(address)
    return frozenset(found)


def without(network: Network, address: Address) -> list[Network]:
    """``network`` as the networks that are left when ``address`` is cut out of it."""
    if isinstance(network, IPv4Network) and isinstance(address, IPv4Address) and address in network:
        return list(network.address_exclude(IPv4Network(address)))
    if isinstance(network, IPv6Network) and isinstance(address, IPv6Address) and address in network:
        return list(network.address_exclude(IPv6Network(address)))
    return [network]


@lru_cache(maxsize=32)
def banned(
    default: tuple[str, ...], additional: tuple[str, ...], spared: frozenset[Address]
) -> tuple[str, ...]:
    """``default`` without the ``spared`` addresses, and ``additional``, which wins over sparing."""
    result: list[str] = []
    for text in default:
        parts: list[Network] = [ip_network(text)]
        for address in spared:
            parts = [piece for part in parts for piece in without(part, address)]
        # An untouched network keeps its spelling: it is what the error message shows.
        result += [text] if len(parts) == 1 and parts[0] == ip_network(text) else map(str, parts)
    return (*result, *additional)


def resolve(host: str) -> list[str]:
    """The addresses of ``host`` now; none where it does not resolve."""
    try:
        found = socket.getaddrinfo(host, None, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


class BannedSubnets:
    """Reads like the list ``USER_ADDITIONAL_BANNED_SUBNETS``; made anew at every reading.

    Names are resolved again after ``seconds``, so that one request's several checks ask once.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        default: Iterable[str] = DEFAULT_BANNED,
        additional: Iterable[str] = (),
        resolver: Resolver = resolve,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = 2.0,
    ) -> None:
        self.hosts = tuple(hosts)
        self.default = tuple(default)
        self.additional = tuple(additional)
        self._resolver = resolver
        self._clock = clock
        self._seconds = seconds
        self._lock = threading.Lock()
        self._spared: frozenset[Address] = frozenset()
        self._until = float("-inf")

    def spared(self) -> frozenset[Address]:
        """The addresses that may be called now although they are private."""
        with self._lock:
            if self._clock() >= self._until:
                self._spared = sparable(
                    text for host in self.hosts for text in self._resolver(host)
                )
                self._until = self._clock() + self._seconds
            return self._spared

    def _now(self) -> tuple[str, ...]:
        return banned(self.default, self.additional, self.spared())

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def __bool__(self) -> bool:
        # Upstream writes ``settings.USER_ADDITIONAL_BANNED_SUBNETS or []``: never let that drop it.
        return True

    def __contains__(self, item: object) -> bool:
        return item in self._now()

    def __repr__(self) -> str:
        return f"<BannedSubnets sparing the addresses of {', '.join(self.hosts) or 'nobody'}>"
