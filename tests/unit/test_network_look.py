"""What the role `network` refuses, by what it found; and how it makes a VLAN."""

from __future__ import annotations

import importlib.util
import ipaddress
import socket

import jinja2
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lib import ROOT

ROLE = ROOT / "ansible" / "roles" / "network"


def load():
    spec = importlib.util.spec_from_file_location("network_look", ROLE / "library/network_look.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


look = load()
LAN = ipaddress.IPv4Network("192.168.103.0/24")
WANTED = {"studio": "192.168.103.130", "backend": "192.168.103.129"}


@pytest.fixture
def net(tmp_path):
    """The kernel's list of interfaces: a cable, Wi-Fi, a bridge with a port."""
    for name in ("lo", "eth0", "wlan0/phy80211", "br0", "eth1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "eth1" / "master").symlink_to(tmp_path / "br0")
    return tmp_path


@pytest.mark.parametrize("parent", ["eth0", "eth0.103", "br0", "br0.4094"])
def test_a_cable_a_bridge_and_a_vlan_of_them_can_be_parents(net, parent):
    assert look.interface_faults(parent, net) == []


@pytest.mark.parametrize(
    ("parent", "said"),
    [
        ("eth7", "found no interface eth7, expected one of br0, eth0, eth1, wlan0"),
        ("eth0.0", "found VLAN 0, expected a number from 1 to 4094"),
        ("eth0.4095", "found VLAN 4095, expected a number from 1 to 4094"),
        ("wlan0", "is a Wi-Fi interface, expected a cable"),
        ("wlan0.5", "is a Wi-Fi interface, expected a cable"),
        ("eth1", "is a port of br0, which takes its frames first. Use br0"),
        ("lo", "expected an interface of the LAN"),
    ],
)
def test_what_cannot_be_a_parent_is_named_with_what_can(net, parent, said):
    assert any(said in fault for fault in look.interface_faults(parent, net))


def test_the_defaults_are_addresses_of_one_network():
    given = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    addresses = {name: text for name, text in given.items() if name.endswith("_address")}
    assert len(addresses) == 3
    network, faults = look.subnet_of(given["network_subnet"])
    assert not faults
    assert not look.address_faults(network, given["network_gateway"], addresses)


@pytest.mark.parametrize("text", ["192.168.103.5/24", "192.168.103.0/33", "fd00::/64", ""])
def test_a_subnet_that_is_none_is_named_once(text):
    network, (fault,) = look.subnet_of(text)
    assert network is None
    assert f"network_subnet: found {text!r}, expected one such as 192.168.103.0/24" in fault


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"addresses": {**WANTED, "backend": "10.0.0.1"}}, "expected a host's address in 192.168"),
        ({"addresses": {**WANTED, "backend": "192.168.103.255"}}, "expected a host's address"),
        ({"addresses": {**WANTED, "backend": "x"}}, "backend: found 'x'"),
        ({"addresses": {**WANTED, "backend": WANTED["studio"]}}, "is already studio"),
        ({"gateway": WANTED["studio"]}, "is already network_gateway"),
        ({"own": [WANTED["studio"]]}, "is this host's own address"),
        ({"dhcp_range": "192.168.103.100-192.168.103.200"}, "which DHCP gives to others"),
        ({"dhcp_range": "192.168.103.200-192.168.103.100"}, "ends before it begins"),
        ({"dhcp_range": "many"}, "network_dhcp_range: found 'many'"),
    ],
)
def test_an_address_that_cannot_be_is_named_with_what_can(changes, said):
    fine = {"network": LAN, "gateway": "192.168.103.1", "addresses": WANTED}
    assert look.address_faults(**fine) == []
    assert any(said in fault for fault in look.address_faults(**{**fine, **changes}))


def test_a_network_that_another_interface_leads_to_is_refused():
    routes = [{"dst": "default", "dev": "eth0"}, {"dst": "192.168.0.0/16", "dev": "tun0"}]
    (fault,) = look.route_faults(LAN, routes, {"eth0"})
    assert "overlaps the route to 192.168.0.0/16 by tun0" in fault
    assert look.route_faults(LAN, routes, {"eth0", "tun0"}) == []


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"Options": {"parent": "eth0"}}, "the Docker Engine's network vlan103 has eth0 already"),
        ({"Options": {"parent": "eth1"}, "subnet": "192.168.0.0/16"}, "vlan103 overlaps 192.168"),
        ({"Options": None, "subnet": "192.168.103.128/25"}, "vlan103 overlaps 192.168.103.0/24"),
        ({"Options": {"parent": "eth1"}}, ""),
        ({"Name": "ls-yolo_lan", "Options": {"parent": "eth0"}, "subnet": "192.168.103.0/24"}, ""),
        ({"Options": None, "subnet": "fd00::/64"}, ""),
    ],
)
def test_a_network_of_the_engine_that_ours_cannot_stand_beside_is_named(network, said):
    """Such as the one that was made by hand for the same services."""
    subnet = network.pop("subnet", "10.9.0.0/24")
    told = [{"Name": "vlan103", "IPAM": {"Config": [{"Subnet": subnet}]}, **network}]
    found = look.engine_faults(LAN, "eth0", told, "ls-yolo_lan")
    if not said:
        assert found == []
    else:
        (fault,) = found
        assert said in fault
        assert "docker network rm vlan103" in fault


def test_the_shim_is_known_by_its_mark_when_its_name_has_changed(net):
    (net / "eth0" / "ifalias").write_text("\n")
    assert look.named("shim of ls-yolo", net) == []
    (net / "eth1" / "ifalias").write_text("shim of ls-yolo\n")
    assert look.named("shim of ls-yolo", net) == ["eth1"]


def test_a_machine_that_answers_for_an_address_is_a_conflict_unless_it_is_ours():
    answers = {"192.168.103.130": "02:00:00:00:00:01"}
    (fault,) = look.conflict_faults(WANTED, answers, [])
    assert "192.168.103.130 is in use by another machine, 02:00:00:00:00:01" in fault
    assert look.conflict_faults(WANTED, answers, ["02:00:00:00:00:01"]) == []


@given(st.binary(min_size=6, max_size=6), st.ip_addresses(v=4))
def test_a_question_gives_away_no_address_of_the_one_who_asks(mac, address):
    """So that no machine on the LAN puts it among those it knows (RFC 5227)."""
    frame = look.arp_request(mac, str(address))
    assert look.arp_answer(frame) == ("0.0.0.0", mac.hex(":"))
    assert frame.endswith(socket.inet_aton(str(address)))


@given(st.binary(max_size=64))
def test_no_frame_is_too_odd(frame):
    assert look.arp_answer(frame) is None or len(frame) >= 42


def shim(**variables):
    given = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["bool"] = bool
    template = environment.from_string((ROLE / "templates/shim.sh.j2").read_text())
    base, _, vlan = variables["network_parent"].partition(".")
    return template.render(
        network_shim_alias="shim",
        **{**given, "network_base": base, "network_vlan": vlan, **variables},
        ansible_managed="",
    )


def test_a_vlan_is_made_on_its_interface_before_the_shim():
    """By the text alone: where this is tested the kernel often has no VLANs."""
    text = shim(network_parent="eth0.103")
    vlan = text.index("ip link add link eth0 name eth0.103 type vlan id 103")
    assert vlan < text.index("ip link add ls-yolo-shim link eth0.103 type macvlan mode bridge")


def test_no_vlan_is_made_where_none_is_asked_for():
    assert "type vlan" not in shim(network_parent="eth0")
