#!/usr/bin/python
"""Looks whether addresses on the LAN can be given to containers. Changes nothing."""

from __future__ import annotations

import ipaddress
import json
import re
import select
import socket
import struct
import time
from pathlib import Path

DOCUMENTATION = r"""
module: network_look
short_description: Looks whether addresses on a LAN can be given to containers
description:
  - Reads interfaces, addresses and routes of the host and its engine's networks, and asks the LAN
    by ARP for the addresses.
  - Changes nothing. Returns what is wrong, with what was found, what is expected and the fix.
  - A module, and not scripts/host/macvlan.py, because it looks before the kit is on the host.
options:
  parent: {type: str, required: true, description: "Interface, or INTERFACE.VLAN."}
  shim: {type: str, required: true, description: "The host's own interface to its containers."}
  shim_alias: {type: str, required: true, description: "Its mark, whatever its name has been."}
  subnet: {type: str, required: true, description: "The LAN, such as 192.168.103.0/24."}
  gateway: {type: str, default: "", description: "The router's address."}
  addresses: {type: dict, required: true, description: "Addresses by their variable."}
  dhcp_range: {type: str, default: "", description: "What DHCP gives out, first-last."}
  network: {type: str, required: true, description: "Our own network of the Docker Engine."}
  wait: {type: float, default: 2.0, description: "Seconds to listen for answers."}
author: [ls-yolo]
"""

EXAMPLES = r"""
- name: Look at the network
  network_look:
    parent: eth0
    shim: ls-yolo-shim
    shim_alias: shim of ls-yolo
    subnet: 192.168.103.0/24
    addresses: {network_backend_address: 192.168.103.129}
    network: ls-yolo_lan
"""

RETURN = r"""
faults: {description: What is wrong., returned: always, type: list, elements: str}
parent_missing: {description: Whether a VLAN is still to be made., returned: always, type: bool}
"""

NET = Path("/sys/class/net")
ETH_P_ARP = 0x0806


def vlan_of(parent):
    """Interface and VLAN number of ``eth0.103``; None where there is no VLAN."""
    match = re.fullmatch(r"(.+)\.(\d{1,4})", parent)
    return (match[1], int(match[2])) if match else (parent, None)


def named(alias, net=NET):
    """The interfaces that carry this alias."""
    return [path.parent.name for path in net.glob("*/ifalias") if path.read_text().strip() == alias]


def interface_faults(parent, net=NET):
    """What is wrong with the parent interface, by what the kernel says of it."""
    base, vlan = vlan_of(parent)
    device = net / (parent if (net / parent).exists() else base)
    if not device.exists():
        there = sorted(path.name for path in net.iterdir() if path.name != "lo")
        return [f"network_parent: found no interface {base}, expected one of {', '.join(there)}"]
    faults = []
    if vlan is not None and not 1 <= vlan <= 4094:
        faults.append(f"network_parent: found VLAN {vlan}, expected a number from 1 to 4094")
    if (net / base / "wireless").exists() or (net / base / "phy80211").exists():
        faults.append(
            f"network_parent: {base} is a Wi-Fi interface, expected a cable: an access point takes "
            "frames from one MAC address for each client, so those of containers are dropped. Use "
            "a wired interface, or go without macvlan (network_macvlan: false) and publish the "
            "ports (BIND_ADDRESS)"
        )
    if (device / "master").exists():
        master = (device / "master").resolve().name
        faults.append(
            f"network_parent: {device.name} is a port of {master}, which takes its frames first. "
            f"Use {master}"
        )
    if device.name == "lo":
        faults.append("network_parent: found lo, expected an interface of the LAN")
    return faults


def subnet_of(text):
    """The LAN, and what is wrong with it: one of them."""
    try:
        return ipaddress.IPv4Network(text), []
    except ValueError as error:
        return None, [
            f"network_subnet: found {text!r}, expected one such as 192.168.103.0/24: {error}"
        ]


def parse_range(text):
    """First and last address of ``a-b``."""
    first, _dash, last = text.partition("-")
    pair = (ipaddress.IPv4Address(first.strip()), ipaddress.IPv4Address(last.strip()))
    if pair[0] > pair[1]:
        raise ValueError(f"{text!r} ends before it begins")
    return pair


def address_faults(network, gateway, addresses, dhcp_range="", own=()):
    """What is wrong with the addresses in ``network`` themselves. ``own``: the host's."""
    faults, taken = [], {}
    if gateway:
        addresses = {"network_gateway": gateway, **addresses}
    try:
        dhcp = parse_range(dhcp_range) if dhcp_range else None
    except ValueError as error:
        dhcp = None
        faults.append(
            f"network_dhcp_range: found {dhcp_range!r}, expected "
            f"192.168.103.200-192.168.103.250: {error}"
        )
    for name, text in addresses.items():
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            faults.append(f"{name}: found {text!r}, expected an address of {network}")
            continue
        if address not in network or address in (
            network.network_address,
            network.broadcast_address,
        ):
            faults.append(f"{name}: found {address}, expected a host's address in {network}")
        if address in taken:
            faults.append(f"{name}: {address} is already {taken[address]}, expected one of its own")
        taken[address] = name
        if name == "network_gateway":
            continue
        if str(address) in own:
            faults.append(f"{name}: {address} is this host's own address, expected one of its own")
        if dhcp and dhcp[0] <= address <= dhcp[1]:
            faults.append(
                f"{name}: {address} is in {dhcp_range}, which DHCP gives to others. Take one "
                "outside, or make the router's range smaller"
            )
    return faults


def route_faults(network, routes, ours):
    """Routes to ``network`` by interfaces other than ``ours``. ``routes``: ip -json route."""
    faults = []
    for route in routes:
        target = route.get("dst", "default")
        if (
            target == "default"
            or route.get("dev") in ours
            or route.get("type", "unicast") != "unicast"
        ):
            continue
        if network.overlaps(ipaddress.IPv4Network(target, strict=False)):
            faults.append(
                f"network_subnet: {network} overlaps the route to {target} by {route.get('dev')}, "
                "which is another network. Correct network_subnet or network_parent"
            )
    return faults


def engine_faults(wanted, parent, networks, ours):
    """Networks of the Docker Engine that it would not let ``ours`` stand beside.

    ``networks``: docker network inspect.
    """
    faults = []
    for network in networks:
        name = network["Name"]
        if name == ours:
            continue
        subnets = [entry.get("Subnet", "") for entry in network["IPAM"].get("Config") or ()]
        fix = (
            f"Take what is in it away and remove it (docker network rm {name}), or correct "
            "network_parent and network_subnet"
        )
        if (network.get("Options") or {}).get("parent") == parent:
            faults.append(
                f"network_parent: the Docker Engine's network {name} has {parent} already, and it "
                f"lets no other stand on it. {fix}"
            )
        elif any(
            wanted.overlaps(ipaddress.IPv4Network(text, strict=False))
            for text in subnets
            if text and ":" not in text
        ):
            faults.append(
                f"network_subnet: the Docker Engine's network {name} overlaps {wanted}. {fix}"
            )
    return faults


def conflict_faults(addresses, answers, known):
    """Addresses that another machine has. ``answers``: address to MAC; ``known``: our MACs."""
    known = {mac.lower() for mac in known}
    return [
        f"{name}: {address} is in use by another machine, {answers[address]}. Free it there, or "
        "take another address"
        for name, address in addresses.items()
        if address in answers and answers[address] not in known
    ]


def arp_request(mac, address):
    """An ARP probe (RFC 5227): who has ``address``? The sender's own address stays 0.0.0.0."""
    target = socket.inet_aton(address)
    return (
        b"\xff" * 6
        + mac
        + struct.pack("!H", ETH_P_ARP)
        + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        + mac
        + b"\0" * 4
        + b"\0" * 6
        + target
    )


def arp_answer(frame):
    """Address and MAC of whoever sends an ARP frame; None if it is something else."""
    if len(frame) < 42 or frame[12:14] != struct.pack("!H", ETH_P_ARP):
        return None
    mac = ":".join(f"{byte:02x}" for byte in frame[22:28])
    return socket.inet_ntoa(frame[28:32]), mac


def probe(parent, addresses, wait):
    """Asks the LAN three times who has the addresses; what answers within ``wait`` seconds."""
    found = {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as link:
        link.bind((parent, ETH_P_ARP))
        mac = link.getsockname()[4]
        for _attempt in range(3):
            for address in addresses:
                link.send(arp_request(mac, address))
            end = time.monotonic() + wait / 3
            while (left := end - time.monotonic()) > 0:
                if not select.select([link], [], [], left)[0]:
                    break
                answer = arp_answer(link.recv(2048))
                if answer and answer[0] in addresses:
                    found[answer[0]] = answer[1]
    return found


def main():
    from ansible.module_utils.basic import AnsibleModule

    module = AnsibleModule(
        argument_spec={
            "parent": {"type": "str", "required": True},
            "shim": {"type": "str", "required": True},
            "shim_alias": {"type": "str", "required": True},
            "subnet": {"type": "str", "required": True},
            "gateway": {"type": "str", "default": ""},
            "addresses": {"type": "dict", "required": True},
            "dhcp_range": {"type": "str", "default": ""},
            "network": {"type": "str", "required": True},
            "wait": {"type": "float", "default": 2.0},
        },
        supports_check_mode=True,
    )
    given = module.params
    parent, addresses = given["parent"], given["addresses"]
    shims = {given["shim"], *named(given["shim_alias"])}

    def ip(*words):
        return json.loads(
            module.run_command(["ip", "-json", "-4", *words], check_rc=True)[1] or "[]"
        )

    def engine(*words):
        program = module.get_bin_path("docker")
        code, said, _ = module.run_command([program, "network", *words]) if program else (1, "", "")
        return said if code == 0 else ""

    ids = engine("ls", "--quiet", "--no-trunc").split()
    networks = json.loads((engine("inspect", *ids) if ids else "") or "[]")
    bridges = {f"br-{network['Id'][:12]}" for network in networks}
    own = {
        entry["local"]
        for link in ip("address", "show")
        if link.get("ifname") not in shims
        for entry in link.get("addr_info", [])
    }
    subnet, faults = subnet_of(given["subnet"])
    faults += interface_faults(parent)
    if subnet:
        faults += address_faults(subnet, given["gateway"], addresses, given["dhcp_range"], own)
        # The engine's bridges are told by their networks' names.
        faults += route_faults(subnet, ip("route", "show"), {parent, *shims, *bridges})
        faults += engine_faults(subnet, parent, networks, given["network"])
    missing = not (NET / parent).exists()
    if not faults and not missing:
        macs = [
            (path / "address").read_text().strip()
            for path in NET.iterdir()
            if (path / "address").is_file()
        ]
        answers = probe(parent, sorted(addresses.values()), given["wait"])
        macs += [
            container["MacAddress"]
            for network in networks
            if network["Name"] == given["network"]
            for container in (network.get("Containers") or {}).values()
        ]
        faults += conflict_faults(addresses, answers, macs)
    module.exit_json(changed=False, faults=faults, parent_missing=missing)


if __name__ == "__main__":
    main()
