"""What must hold before the services get addresses on the LAN."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host import macvlan
from host.checks import OK, STOP, WARNING
from lib import settings

DEFAULTS = settings.values(
    {"MACVLAN": "1", "MACVLAN_PARENT": "eth0", "BASIC_AUTH_PASS": "x"}, Path("/dev/null")
)
SUBNET = ipaddress.IPv4Network("192.168.103.0/24")


def test_the_defaults_are_those_of_the_deployment_that_was_made_by_hand():
    assert macvlan.faults(DEFAULTS) == []
    assert DEFAULTS["LABEL_STUDIO_ADDRESS"] == "192.168.103.130"
    assert DEFAULTS["BACKEND_ADDRESS"] == "192.168.103.129"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"MACVLAN_SUBNET": "192.168.103.5/24"},
            "MACVLAN_SUBNET: 192.168.103.5/24 has host bits set",
        ),
        ({"MACVLAN_SUBNET": "192.168.300.0/24"}, "MACVLAN_SUBNET: "),
        ({"LABEL_STUDIO_ADDRESS": "192.168.104.130"}, "expected an address of 192.168.103.0/24"),
        ({"BACKEND_ADDRESS": "192.168.103.255"}, "which is its broadcast"),
        ({"BACKEND_ADDRESS": "192.168.103.0"}, "which is the network itself"),
        ({"BACKEND_ADDRESS": "192.168.103.130"}, "which is LABEL_STUDIO_ADDRESS too"),
        ({"LABEL_STUDIO_ADDRESS": "192.168.103.1"}, "which is MACVLAN_GATEWAY too"),
        ({"MACVLAN_GATEWAY": "1.2.3.400"}, "MACVLAN_GATEWAY: "),
    ],
)
def test_addresses_that_cannot_be(changes, fault):
    (told,) = macvlan.faults({**DEFAULTS, **changes})
    assert fault in told


# /proc/net/route of a machine: eth0 with the default route, a bridge, a shim with one address.
ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0167A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t0067A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
shim\t8267A8C0\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0
"""


@pytest.fixture
def interfaces(tmp_path):
    """A folder as /sys/class/net, with a wired and a wireless interface."""

    def add(name, state="up", *inside):
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
        for entry in inside:
            (tmp_path / name / entry).mkdir()

    for name in ("lo", "docker0", "br-1a2b3c", "veth12"):
        add(name)
    add("eth0")
    add("wlan0", "up", "wireless")
    add("eth1", "down")
    add("shim", "up", "lower_eth0")
    return tmp_path


def test_routes_as_the_kernel_writes_them():
    found = [(route.interface, str(route.network)) for route in macvlan.parse_routes(ROUTES)]
    assert found == [
        ("eth0", "192.168.103.0/24"), ("docker0", "172.17.0.0/16"), ("shim", "192.168.103.130/32"),
    ]  # fmt: skip


def test_the_parents_own_route_and_the_shims_are_no_overlap(interfaces):
    routes = macvlan.parse_routes(ROUTES)
    assert macvlan.overlapping(SUBNET, "eth0", routes, interfaces) == []
    elsewhere = macvlan.overlapping(SUBNET, "eth1", routes, interfaces)
    assert [route.interface for route in elsewhere] == ["eth0", "shim"]


@given(st.ip_addresses(v=4), st.integers(1, 32), st.ip_addresses(v=4), st.integers(1, 32))
def test_routes_overlap_where_one_of_them_holds_the_other(one, wide, other, narrow):
    first, second = (ipaddress.IPv4Network((int(a), n), strict=False)
                     for a, n in ((one, wide), (other, narrow)))  # fmt: skip
    found = macvlan.overlapping(first, "eth0", [macvlan.Route("eth9", second)], Path("/nowhere"))
    assert bool(found) == (first.subnet_of(second) or second.subnet_of(first))


@pytest.mark.parametrize(
    ("parent", "state", "words"),
    [
        ("eth0", OK, ""),
        ("eth0.103", OK, ""),
        (
            "",
            STOP,
            "here are: eth0, eth1, shim. For example: make up MACVLAN=1 MACVLAN_PARENT=eth0",
        ),
        ("eth7", STOP, "Set MACVLAN_PARENT to one of: eth0, eth1, shim"),
        ("eth7.103", STOP, "one of"),
        ("eth0.4095", STOP, "one of"),
        ("wlan0", STOP, "BIND_ADDRESS=0.0.0.0"),
        ("eth1", WARNING, "is the cable in"),
    ],
)
def test_the_parent(interfaces, parent, state, words):
    check = macvlan.check_parent(parent, interfaces)
    assert check.state == state
    assert words in check.fix


def network(name, subnet, **more):
    return {"Name": name, "Id": "a" * 64, "IPAM": {"Config": [{"Subnet": subnet}]}, **more}


def test_a_network_of_the_engine_in_the_way_is_named():
    ours = network("ls-yolo_lan", "192.168.103.0/24", Options={"parent": "eth0"})
    apart = network("other", "10.0.0.0/8", Options=None)
    none = {"Name": "host", "Id": "b" * 64, "IPAM": {"Config": None}, "Options": {}}
    six = network("six", "fd00::/64", Options={})
    assert macvlan.in_the_way(DEFAULTS, [ours, apart, none, six], "ls-yolo_lan") == []
    vlan103 = network("vlan103", "192.168.103.0/24", Options={"parent": "eth0"})
    (told,) = macvlan.in_the_way(DEFAULTS, [vlan103], "ls-yolo_lan")
    assert told.state == STOP
    assert "docker network rm vlan103" in told.fix
    (told,) = macvlan.in_the_way(
        DEFAULTS, [network("b", "192.168.0.0/16", Options={})], "ls-yolo_lan"
    )
    assert "overlaps" in told.found


def test_addresses_of_our_own_containers_are_not_asked_for():
    ours = {**network("ls-yolo_lan", "192.168.103.0/24"),
            "Containers": {"1": {"IPv4Address": "192.168.103.130/24"}}}  # fmt: skip
    assert macvlan.own_addresses([ours], "ls-yolo_lan") == {"192.168.103.130"}
    assert macvlan.own_addresses([{**ours, "Name": "x"}], "ls-yolo_lan") == set()


@pytest.fixture
def segment(monkeypatch):
    """A LAN on which ``segment["has"]`` says who has what; None: nobody may ask."""
    state = {"has": {}}
    monkeypatch.setattr(macvlan, "is_ours", lambda address: False)
    monkeypatch.setattr(macvlan, "INTERFACES", Path("/sys/class/net"))
    monkeypatch.setattr(macvlan, "ask", lambda parent, addresses: state["has"])
    return state


LOOPBACK = {**DEFAULTS, "MACVLAN_PARENT": "lo"}


def test_an_address_that_someone_has_is_refused(segment):
    segment["has"] = {"192.168.103.129": "02:00:00:00:00:07"}
    (told,) = macvlan.check_addresses(LOOPBACK, set())
    assert (told.state, told.name) == (STOP, "BACKEND_ADDRESS")
    assert "the machine 02:00:00:00:00:07 has it" in told.found


def test_an_address_of_this_host_is_refused(segment, monkeypatch):
    monkeypatch.setattr(macvlan, "is_ours", lambda address: address.endswith(".130"))
    (told,) = macvlan.check_addresses(LOOPBACK, set())
    assert "this host itself" in told.found


def test_where_nobody_may_ask_that_is_said(segment):
    segment["has"] = None
    (told,) = macvlan.check_addresses(LOOPBACK, set())
    assert told.state == WARNING
    assert "scripts/probe.py lo 192.168.103.130 192.168.103.129" in told.fix
    (told,) = macvlan.check_addresses(LOOPBACK, {"192.168.103.130", "192.168.103.129"})
    assert told.state == OK


def test_an_arp_probe_names_no_sender_and_an_answer_is_read_back():
    mac = bytes.fromhex("0242c0a86782")
    asked = macvlan.request(mac, "192.168.103.130")
    assert len(asked) == 42
    assert asked[28:32] == bytes(4)
    assert socket.inet_ntoa(asked[38:42]) == "192.168.103.130"
    assert macvlan.answer(asked) is None
    said = asked[:20] + b"\0\2" + mac + socket.inet_aton("192.168.103.130") + bytes(10)
    assert macvlan.answer(said) == ("192.168.103.130", "02:42:c0:a8:67:82")


@given(st.binary(max_size=80))
def test_any_frame_is_read_without_an_error(frame):
    macvlan.answer(frame)
    macvlan.answer(bytes(12) + b"\x08\x06" + frame)


@pytest.fixture
def host(monkeypatch, tmp_path, interfaces):
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    monkeypatch.setattr(
        macvlan, "check_parent", lambda parent: macvlan.Check("MACVLAN_PARENT", parent, "")
    )
    monkeypatch.setattr(
        macvlan, "check_addresses", lambda *_: [macvlan.Check("LAN addresses", "", "")]
    )
    monkeypatch.setattr(macvlan, "ROUTES", tmp_path / "route")
    (tmp_path / "route").write_text(ROUTES.replace("shim", "eth0"))
    return tmp_path


def test_without_macvlan_nothing_is_looked_at():
    assert macvlan.checks({**DEFAULTS, "MACVLAN": ""}, answers=True) == []


def test_a_backend_without_authentication_stays_off_the_lan(host):
    open_to_all = {**DEFAULTS, "BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}
    # No .env yet: the password is going to be generated.
    assert {line.state for line in macvlan.checks(open_to_all, answers=False)} == {OK}
    (host / ".env").write_text("BASIC_AUTH_USER=\nBASIC_AUTH_PASS=\n")
    told = [line for line in macvlan.checks(open_to_all, answers=False) if line.state == STOP]
    assert [line.name for line in told] == ["BASIC_AUTH_PASS"]


def test_a_lan_that_another_interface_leads_to_is_refused(host):
    told = [
        line
        for line in macvlan.checks({**DEFAULTS, "MACVLAN_PARENT": "eth1"}, False)
        if line.state == STOP
    ]
    assert "192.168.103.0/24 is reached by eth0" in told[0].found
