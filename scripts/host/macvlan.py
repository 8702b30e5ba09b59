"""The LAN addresses of the two services (MACVLAN=1): what there is for them on this host."""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host.checks import OK, STOP, WARNING, Check
from lib import ROOT, commands, docker, settings

ADDRESSES = ("LABEL_STUDIO_ADDRESS", "BACKEND_ADDRESS")
INTERFACES = Path("/sys/class/net")
ROUTES = Path("/proc/net/route")
PROBE = ROOT / "scripts" / "probe.py"
# How long an answer may take, and how often is asked: a switch may drop the first frame.
ANSWER_WITHIN = 0.7
ASKED = 2


# What the settings say


def faults(values: Mapping[str, str]) -> list[str]:
    """What is wrong with the addresses, without a look at the host."""
    try:
        subnet = ipaddress.IPv4Network(values["MACVLAN_SUBNET"])
    except ValueError as error:
        return [f"MACVLAN_SUBNET: {error}"]
    wrong = []
    taken: dict[ipaddress.IPv4Address, str] = {
        subnet.network_address: "the network itself",
        subnet.broadcast_address: "its broadcast",
    }
    for name in ("MACVLAN_GATEWAY", *ADDRESSES):
        try:
            address = ipaddress.IPv4Address(values[name])
        except ValueError as error:
            wrong.append(f"{name}: {error}")
            continue
        if address not in subnet:
            wrong.append(f"{name}: found {address}, expected an address of {subnet}")
        elif address in taken:
            wrong.append(f"{name}: found {address}, which is {taken[address]}")
        taken.setdefault(address, f"{name} too")
    return wrong


# What the host has


@dataclass(frozen=True)
class Route:
    interface: str
    network: ipaddress.IPv4Network


def parse_routes(text: str) -> list[Route]:
    """The routes of /proc/net/route, without the default one."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        # In hexadecimal, in the order of this machine's bytes.
        number, mask = (struct.pack("=I", int(words[i], 16)) for i in (1, 7))
        ones = int.from_bytes(mask, "big").bit_count()
        network = ipaddress.IPv4Network((number, ones), strict=False)
        if network.prefixlen:
            found.append(Route(words[0], network))
    return found


def overlapping(
    subnet: ipaddress.IPv4Network, parent: str, routes: Iterable[Route], folder: Path = INTERFACES
) -> list[Route]:
    """Routes that lead addresses of the LAN elsewhere: not over ``parent`` nor over what lies on
    it, such as the shim by which the host reaches its own containers.
    """
    return [
        route
        for route in routes
        if route.network.overlaps(subnet)
        and route.interface != parent
        and not (folder / route.interface / f"lower_{parent}").exists()
    ]


def wired(folder: Path = INTERFACES) -> list[str]:
    """Interfaces that a LAN could be at: hardware, bridges and bonds, nothing of Docker's."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    ours = ("lo", "docker", "br-", "veth", "ifb")
    return sorted(n for n in names if not n.startswith(ours) and not wireless(n, folder))


def wireless(name: str, folder: Path = INTERFACES) -> bool:
    return (folder / name / "wireless").exists() or (folder / name / "phy80211").exists()


def check_parent(parent: str, folder: Path = INTERFACES) -> Check:
    needed = "an interface with a cable"
    if not parent:
        here = ", ".join(wired(folder)) or "none"
        return Check(
            "MACVLAN_PARENT", "not set", needed, STOP,
            f"Name the interface of the LAN; here are: {here}. For example: "
            "make up MACVLAN=1 MACVLAN_PARENT=eth0",
        )  # fmt: skip
    base, dot, number = parent.rpartition(".")
    if not (folder / parent).exists():
        if dot and number.isdecimal() and 0 < int(number) < 4095 and (folder / base).exists():
            return Check(
                "MACVLAN_PARENT",
                f"{parent}: the Docker Engine makes VLAN {number} on {base}",
                needed,
            )
        here = ", ".join(wired(folder)) or "none"
        return Check(
            "MACVLAN_PARENT",
            f"no interface {parent}",
            needed,
            STOP,
            f"Set MACVLAN_PARENT to one of: {here}",
        )
    if wireless(parent, folder):
        return Check(
            "MACVLAN_PARENT", f"{parent} is Wi-Fi", needed, STOP,
            "An access point drops what comes from more than one hardware address: take an "
            "interface with a cable, or do without MACVLAN: BIND_ADDRESS=0.0.0.0 opens the ports "
            "at the host's own address",
        )  # fmt: skip
    state = (folder / parent / "operstate").read_text().strip()
    if state in ("down", "lowerlayerdown", "notpresent"):
        fix = f"The LAN is not reached: is the cable in? Or run: sudo ip link set {parent} up"
        return Check("MACVLAN_PARENT", f"{parent} is {state}", needed, WARNING, fix)
    return Check("MACVLAN_PARENT", parent, needed)


# What the Docker Engine has


def networks() -> list[dict[str, Any]]:
    """The Docker Engine's networks, as ``docker network inspect`` says."""
    ids = commands.output([docker.client(), "network", "ls", "--quiet", "--no-trunc"])
    if not ids:
        return []
    told = commands.output([docker.client(), "network", "inspect", *ids.split()])
    return list(json.loads(told)) if told else []


def subnets(network: Mapping[str, Any]) -> list[ipaddress.IPv4Network]:
    found = [entry.get("Subnet", "") for entry in network["IPAM"].get("Config") or ()]
    return [ipaddress.IPv4Network(text) for text in found if text and ":" not in text]


def in_the_way(
    values: Mapping[str, str], found: Iterable[Mapping[str, Any]], ours: str
) -> list[Check]:
    """Networks of the Docker Engine that it would not let ours stand beside."""
    subnet = ipaddress.IPv4Network(values["MACVLAN_SUBNET"])
    checks = []
    for network in found:
        if network["Name"] == ours:
            continue
        remove = f"docker network rm {network['Name']}"
        if (network.get("Options") or {}).get("parent") == values["MACVLAN_PARENT"]:
            checks.append(Check(
                "MACVLAN_PARENT",
                f"the Docker network {network['Name']} has {values['MACVLAN_PARENT']} already",
                "no other", STOP, f"Remove that ({remove}), or take another interface",
            ))  # fmt: skip
        elif any(subnet.overlaps(other) for other in subnets(network)):
            checks.append(Check(
                "LAN", f"the Docker network {network['Name']} overlaps {subnet}", "no other",
                STOP, f"Remove that ({remove}), or correct MACVLAN_SUBNET",
            ))  # fmt: skip
    return checks


def own_addresses(found: Iterable[Mapping[str, Any]], ours: str) -> set[str]:
    """Addresses that running containers of ours have on the LAN."""
    return {
        container.get("IPv4Address", "").partition("/")[0]
        for network in found
        if network["Name"] == ours
        for container in (network.get("Containers") or {}).values()
    }


def is_outdated(values: Mapping[str, str], network: Mapping[str, Any]) -> bool:
    """Whether our network was made with other settings: Compose would leave it as it is."""
    made = {(e.get("Subnet"), e.get("Gateway")) for e in network["IPAM"].get("Config") or ()}
    parent = (network.get("Options") or {}).get("parent")
    return parent != values["MACVLAN_PARENT"] or made != {
        (values["MACVLAN_SUBNET"], values["MACVLAN_GATEWAY"])
    }


def name_of(values: Mapping[str, str]) -> str:
    """The network's name, as compose/macvlan.yaml gives it."""
    return f"{values['COMPOSE_PROJECT_NAME']}_lan"


# Who has an address


def request(mac: bytes, address: str) -> bytes:
    """An ARP probe: who has ``address``? It names no sender: no neighbour learns from it."""
    head = b"\xff" * 6 + mac + b"\x08\x06"
    who = socket.inet_aton(address)
    return head + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(4) + bytes(6) + who


def answer(frame: bytes) -> tuple[str, str] | None:
    """Address and hardware address of whoever speaks of itself in an ARP frame."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x06" or frame[28:32] == bytes(4):
        return None
    return socket.inet_ntoa(frame[28:32]), frame[22:28].hex(":")


def probe(parent: str, addresses: Sequence[str]) -> dict[str, str]:
    """Hardware addresses of those on the segment of ``parent`` that have one of ``addresses``.

    Raises:
        PermissionError: not root.
        OSError: there is no such interface, or it is down.
    """
    found: dict[str, str] = {}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
        wire.bind((parent, 0x0806))
        mac = wire.getsockname()[4]
        for _ in range(ASKED):
            for address in addresses:
                wire.send(request(mac, address))
            until = time.monotonic() + ANSWER_WITHIN
            while (left := until - time.monotonic()) > 0 and len(found) < len(addresses):
                if not select.select([wire], [], [], left)[0]:
                    break
                said = answer(wire.recv(128))
                if said and said[0] in addresses and said[1] != mac.hex(":"):
                    found[said[0]] = said[1]
    return found


def is_ours(address: str) -> bool:
    """Whether this host itself has ``address``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
        return True


def ask(parent: str, addresses: Sequence[str]) -> dict[str, str] | None:
    """As ``probe``, by sudo where that asks for no password; None where nobody may ask."""
    if os.geteuid() == 0:
        return probe(parent, addresses)
    if commands.output(["sudo", "-n", "true"]) is None:
        return None
    done = subprocess.run(
        ["sudo", "-n", sys.executable, str(PROBE), "--json", parent, *addresses],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else None


def check_addresses(values: Mapping[str, str], own: set[str]) -> list[Check]:
    """A line for each address that someone else has; one in all if there is none."""
    parent = values["MACVLAN_PARENT"]
    wanted = {values[name]: name for name in ADDRESSES if values[name] not in own}
    taken = {address: "this host itself" for address in wanted if is_ours(address)}
    rest = [address for address in wanted if address not in taken]
    asked: dict[str, str] | None = {}
    if rest and (INTERFACES / parent).exists():
        try:
            asked = ask(parent, rest)
        except OSError:  # the interface is down: its own line says so
            asked = None
    taken |= {address: f"the machine {mac}" for address, mac in (asked or {}).items()}
    if taken:
        return [
            Check(
                wanted[address], f"{address}: {who} has it", "an address that nobody has", STOP,
                f"Take a free one, outside of what DHCP gives away: {wanted[address]} in .env",
            )
            for address, who in taken.items()
        ]  # fmt: skip
    shown = ", ".join(values[name] for name in ADDRESSES)
    if asked is None:
        fix = f"Nobody asked the LAN whether they are free. As root: {_probe_line(parent, rest)}"
        return [Check("LAN addresses", shown, "free", WARNING, fix)]
    return [Check("LAN addresses", shown, "free")]


def _probe_line(parent: str, addresses: Sequence[str]) -> str:
    return f"python3 {PROBE.relative_to(ROOT)} {parent} {' '.join(addresses)}"


# All of it


def checks(values: Mapping[str, str], answers: bool) -> list[Check]:
    """Every line about the LAN; none without MACVLAN. ``answers``: Docker does."""
    if not settings.enabled(values, "MACVLAN"):
        return []
    lines = [check_parent(values["MACVLAN_PARENT"])]
    layers = (os.environ, settings.parse_env(settings.env_text()))
    # Not given at all is another matter: it is going to be generated.
    if not values["BASIC_AUTH_PASS"] and any(
        settings.is_given("BASIC_AUTH_PASS", x) for x in layers
    ):
        lines.append(Check(
            "BASIC_AUTH_PASS", "empty", "a password", STOP,
            "Everyone on the LAN can reach the backend: remove the line from .env, and make up "
            "generates one; or do without MACVLAN",
        ))  # fmt: skip
    if wrong := faults(values):
        fix = "Correct it in .env"
        return lines + [Check("LAN", text, "addresses of one LAN", STOP, fix) for text in wrong]
    subnet = ipaddress.IPv4Network(values["MACVLAN_SUBNET"])
    parent = values["MACVLAN_PARENT"]
    found = networks() if answers else []
    ours = name_of(values)
    bridges = {f"br-{network['Id'][:12]}" for network in found}
    for route in overlapping(subnet, parent, parse_routes(ROUTES.read_text())):
        if route.interface in bridges:
            continue  # told by its name below
        lines.append(Check(
            "LAN", f"{route.network} is reached by {route.interface}", f"{subnet} by {parent}",
            STOP, "Correct MACVLAN_SUBNET or MACVLAN_PARENT: one network has one interface",
        ))  # fmt: skip
    lines += in_the_way(values, found, ours)
    if all(line.state in (OK, WARNING) for line in lines):
        lines += check_addresses(values, own_addresses(found, ours))
    return lines
