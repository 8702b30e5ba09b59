"""What is banned, what is spared, and that nothing else becomes reachable."""

import ipaddress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_kit.ssrf import (
    DEFAULT_BANNED,
    NEVER_SPARED,
    SPARABLE,
    BannedSubnets,
    banned,
    parse_hosts,
    parse_networks,
    resolve,
    sparable,
)

addresses = st.ip_addresses()
# Addresses picked from all over are hardly ever private, so half of them come from the banned
# ranges.
interesting = st.one_of(
    addresses,
    st.sampled_from(DEFAULT_BANNED).flatmap(lambda text: st.ip_addresses(network=text)),
    st.sampled_from(sorted(NEVER_SPARED, key=str)),
)


def refused(address, subnets):
    """The question as Label Studio asks it."""
    return any(ip_address(str(address)) in ip_network(subnet) for subnet in subnets)


@given(st.lists(interesting, max_size=4), st.lists(interesting, max_size=6))
def test_only_what_may_be_spared_becomes_reachable(resolved, others):
    spared = sparable(map(str, resolved))
    subnets = banned(DEFAULT_BANNED, (), spared)
    for address in [*resolved, *others]:
        expected = refused(address, DEFAULT_BANNED) and address not in spared
        assert refused(address, subnets) == expected


@given(st.lists(interesting, min_size=1, max_size=4))
def test_neighbours_of_the_spared_stay_banned(resolved):
    spared = sparable(map(str, resolved))
    subnets = banned(DEFAULT_BANNED, (), spared)
    for address in spared:
        for step in (-1, 1):
            neighbour = address + step
            if neighbour not in spared:
                assert refused(neighbour, subnets) == refused(neighbour, DEFAULT_BANNED)


@given(st.lists(interesting, max_size=4))
def test_the_pieces_partition_the_list(resolved):
    spared = sparable(map(str, resolved))
    for text in DEFAULT_BANNED:
        pieces = [ip_network(piece) for piece in banned((text,), (), spared)]
        inside = [address for address in spared if address in ip_network(text)]
        assert sum(p.num_addresses for p in pieces) + len(inside) == ip_network(text).num_addresses


@given(interesting)
def test_spared_lies_where_containers_live(address):
    found = sparable([str(address)])
    assert found <= {address}
    if found:
        assert any(address in network for network in SPARABLE)
        assert not address.is_loopback and not address.is_link_local
        assert not address.is_multicast and not address.is_unspecified


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0",
        "100.100.100.200", "fd00:ec2::254", "224.0.0.1", "ff02::1", "255.255.255.255",
        "::ffff:172.18.0.3", "64:ff9b::ac12:3", "nonsense", "",
    ],
)  # fmt: skip
def test_never_spared(address):
    assert sparable([address]) == frozenset()


def test_the_operators_own_list_wins():
    subnets = BannedSubnets(
        ["backend"], additional=["172.18.0.0/24"], resolver=lambda host: ["172.18.0.3"]
    )
    assert refused("172.18.0.3", subnets)
    assert "172.18.0.0/24" in subnets


class Names:
    """A resolver and a clock in the test's hands."""

    def __init__(self):
        self.now = 0.0
        self.answers = ["172.18.0.3"]
        self.asked = 0

    def resolve(self, host):
        self.asked += 1
        return self.answers

    def subnets(self, **options):
        return BannedSubnets(
            ["backend"], resolver=self.resolve, clock=lambda: self.now, seconds=2.0, **options
        )


def test_a_backend_made_anew_is_found_without_a_restart():
    names = Names()
    subnets = names.subnets()
    assert not refused("172.18.0.3", subnets) and refused("172.18.0.4", subnets)
    names.answers = ["172.18.0.4"]
    names.now = 1.9
    assert not refused("172.18.0.3", subnets)
    assert names.asked == 1
    names.now = 2.0
    assert refused("172.18.0.3", subnets) and not refused("172.18.0.4", subnets)


def test_a_name_that_does_not_resolve_spares_nothing():
    names = Names()
    names.answers = []
    assert list(names.subnets()) == list(DEFAULT_BANNED)


def test_every_address_of_a_name_is_spared():
    names = Names()
    names.answers = ["10.1.2.3", "fd00::5"]
    subnets = names.subnets()
    assert not refused("10.1.2.3", subnets) and not refused("fd00::5", subnets)
    assert refused("10.1.2.2", subnets) and refused("fd00::4", subnets)


def test_it_is_never_dropped_for_being_empty():
    subnets = BannedSubnets([], default=[])
    assert bool(subnets) and len(subnets) == 0


def test_no_list_where_the_operator_asked_for_none():
    assert list(BannedSubnets(["backend"], default=[], resolver=lambda host: ["10.0.0.1"])) == []


def test_untouched_networks_keep_their_spelling():
    assert banned(DEFAULT_BANNED, (), frozenset()) == DEFAULT_BANNED


def test_the_list_says_where_it_comes_from():
    assert "backend" in repr(BannedSubnets(["backend"]))


def test_hosts():
    assert parse_hosts(" backend , ml.example.com,10.0.0.5,fd00::5,") == (
        "backend", "ml.example.com", "10.0.0.5", "fd00::5",
    )  # fmt: skip
    assert parse_hosts("") == ()


@pytest.mark.parametrize("text", ["http://backend", "backend:9090", "a b", "172.16.0.0/12", "-x"])
def test_hosts_that_are_none(text):
    with pytest.raises(ValueError, match="SSRF_ALLOWED_HOSTS: found"):
        parse_hosts(text)


def test_networks():
    assert parse_networks(["10.1.0.0/16 ", "", "fd00::/8"]) == ("10.1.0.0/16", "fd00::/8")
    with pytest.raises(ValueError, match=r"USER_ADDITIONAL_BANNED_SUBNETS: found '10\.1\.0\.1/16'"):
        parse_networks(["10.1.0.1/16"])


def test_resolving_never_raises(monkeypatch):
    assert "127.0.0.1" in resolve("127.0.0.1")
    for error in (OSError("no"), UnicodeError("label too long")):

        def fail(*args, error=error):
            raise error

        monkeypatch.setattr("socket.getaddrinfo", fail)
        assert resolve("backend") == []


def test_the_lists_are_networks():
    for text in DEFAULT_BANNED:
        ipaddress.ip_network(text)
