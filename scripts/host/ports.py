"""Who has a port on this host."""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host.checks import STOP, Check
from host.docker_engine import Engine
from lib import commands


@dataclass(frozen=True)
class PortUse:
    """Who has a port: ``free``, ``ours``, ``taken`` (by ``who``) or ``bad`` (``who`` says why)."""

    state: str
    who: str = ""


def parse_port(text: str) -> int:
    """The port that ``text`` names; 0 if it names none."""
    if re.fullmatch(r"[0-9]{1,5}", text.strip()) and 1 <= int(text) <= 65535:
        return int(text)
    return 0


def published(listing: str, port: int) -> str:
    """Which container publishes ``port``, by lines "name<TAB>ports" of ``docker ps``."""
    for line in listing.splitlines():
        name, _, ports = line.partition("\t")
        for part in ports.split(","):
            outside = part.strip().partition("->")[0]
            span = outside.rpartition(":")[2] if "->" in part else ""
            low, _, high = span.partition("-")
            if low.isdecimal() and int(low) <= port <= int(high or low):
                return name
    return ""


def try_bind(address: str, port: int) -> OSError | None:
    """The error that the Docker Engine would meet on publishing the port; None if there is none."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen(1)
    except OSError as error:
        return error
    return None


def target_of(link: Path) -> str:
    """Where a link of /proc points; empty if it has gone meanwhile."""
    try:
        return str(link.readlink())
    except OSError:
        return ""


def listener(port: int, proc: Path = Path("/proc")) -> str:
    """Name and id of the process that listens on ``port``, if this user may see it; else empty."""
    inodes = set()
    for table in ("net/tcp", "net/tcp6"):
        try:
            lines = (proc / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if any(target_of(link) in inodes for link in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # it has ended, or belongs to someone else
    return "a process of another user"


def look_at_port(address: str, port: int, ours: str, all_containers: str) -> PortUse:
    """Who has ``port``: ``ours`` and ``all_containers`` are listings of ``docker ps``."""
    # Whoever has the port: containers of ours may have it at the address that was set before.
    # Any port will do for this question (0), as a low one may be refused for another reason.
    if error := try_bind(address, 0):
        return PortUse("bad", error.strerror or str(error))
    if published(ours, port):
        return PortUse("ours")
    if name := published(all_containers, port):
        return PortUse("taken", f"container {name}")
    error = try_bind(address, port)
    if (
        error is None or error.errno == errno.EACCES
    ):  # a low port: the Docker Engine is root and may
        return PortUse("free")
    if error.errno == errno.EADDRINUSE:
        return PortUse("taken", listener(port))
    return PortUse("bad", error.strerror or str(error))


def check_port(setting: str, address: str, port: int, use: PortUse, spare: int) -> Check:
    """``spare`` is a free port to propose."""
    where = f"port {port}"
    if use.state == "bad":
        return Check(
            where, f"cannot be used at {address}: {use.who}", f"free at {address}", STOP,
            "Set BIND_ADDRESS in .env to an address of this host: 127.0.0.1 or 0.0.0.0",
        )  # fmt: skip
    if use.state == "taken":
        by = f" by {use.who}" if use.who else ""
        return Check(
            where, f"taken{by}", f"free at {address}", STOP,
            f"Stop that, or take another port: make up {setting}={spare}   "
            f"(to keep it: {setting}={spare} in .env)",
        )  # fmt: skip
    return Check(where, "used by ls-yolo" if use.state == "ours" else "free", f"free at {address}")


def check_ports(values: Mapping[str, str], engine: Engine) -> list[Check]:
    address = values["BIND_ADDRESS"]
    ours = everyone = ""
    if engine.state == "answers" and engine.client:
        ps = [engine.client, "ps", "--format", "{{.Names}}\t{{.Ports}}"]
        project = f"label=com.docker.compose.project={values['COMPOSE_PROJECT_NAME']}"
        ours = commands.output([*ps, "--filter", project]) or ""
        everyone = commands.output(ps) or ""
    checks: list[Check] = []
    seen: dict[int, str] = {}
    for setting in ("LABEL_STUDIO_PORT", "BACKEND_PORT"):
        port = parse_port(values[setting])
        if not port:
            continue  # check_settings says so
        if port in seen:
            fix = f"Give {setting} and {seen[port]} different ports"
            checks.append(Check(f"port {port}", "asked for twice", "once", STOP, fix))
            continue
        seen[port] = setting
        use = look_at_port(address, port, ours, everyone)
        spare = next(
            (p for p in range(port + 1, min(port + 50, 65535)) if not try_bind(address, p)),
            port + 1,
        )
        checks.append(check_port(setting, address, port, use, spare))
    return checks
