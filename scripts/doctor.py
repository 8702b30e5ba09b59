#!/usr/bin/env python3
"""`make doctor`: what is wrong with this installation, and what to do. Changes nothing.

doctor.py [--project ID_OR_TITLE] [--only CHECK] [--json]

Looks at this host first, then has `ls-yolo doctor` look from inside, as the service setup. Each
check is made whatever the others say. Exit code 0: all is well. 1: warnings. 2: something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compose
import up
from host import checks as host_checks
from host import configuration, cuda, database, docker_engine, gpu, macvlan, ports, system
from host.checks import Check
from lib import ROOT, commands, docker, settings, versions
from lib.cli import UserError, run_main, say

sys.path.append(str(ROOT / "backend"))
from ls_yolo.doctor.base import COMPLETE, Level  # the standard library alone

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
WORDS = {level.name.lower(): level.word for level in Level}
CODES = {level.name.lower(): max(0, int(level)) for level in Level}
LEVELS = {host_checks.OK: OK, host_checks.WARNING: WARNING}


@dataclass(frozen=True)
class Line:
    """What a check found, and the fix; the same fields as `ls-yolo doctor --json` has."""

    check: str
    level: str
    found: str
    fix: str = ""
    subject: str = ""

    def __str__(self) -> str:
        of = f", {self.subject}" if self.subject else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{WORDS[self.level]:4} {self.check}{of}: {self.found}{fix}".replace("\n", " ")

    def as_json(self) -> dict[str, Any]:
        return {"check": self.check, "subject": self.subject, "level": self.level,
                "found": self.found, "fix": self.fix}  # fmt: skip


def told(found: Iterable[Check]) -> Iterator[Line]:
    """Checks of pre-flight as lines."""
    for check in found:
        level = LEVELS.get(check.state, FAILED)
        need = f", expected {check.needed}" if level != OK and check.needed else ""
        fix = check.fix if level != OK else ""
        if check.state == host_checks.INSTALLABLE:
            fix = f"{fix}, or make up, which installs it".lstrip(", ")
        yield Line(check.name, level, f"{check.found}{need}", fix)


# This host


def engine_lines() -> Iterator[Line]:
    engine = docker_engine.find_engine()
    user = os.environ.get("USER") or "$USER"
    yield from told(docker_engine.check_engine(engine, versions.minimums(), True, user))


def containers() -> Iterator[Line]:
    """Whether each service is up and healthy, made of the images of this version."""
    compose.need_env()
    listing = compose.output("ps", "--all", "--format", "json")
    wanted = up.services()
    trouble = up.services_in_trouble(listing, wanted)
    for name, state in trouble.items():
        fix = f"make up; what it says: make logs SERVICE={name}"
        yield Line("containers", FAILED, state, fix, name)
    version = versions.project_version()
    rows = [json.loads(line) for line in listing.splitlines() if line.startswith("{")]
    for row in rows:
        name, _, tag = str(row.get("Image", "")).partition(":")
        if row["Service"] in up.SERVICES and tag and tag != version:
            yield Line(
                "containers", WARNING, f"runs {name}:{tag}, and this is version {version}",
                "make up", str(row["Service"]),
            )  # fmt: skip
    if not trouble:
        yield Line("containers", OK, f"{', '.join(wanted)}: up and healthy, version {version}")


def port_lines() -> Iterator[Line]:
    values = settings.values()
    for line in told(ports.check_ports(values, docker_engine.find_engine())):
        if line.level == OK and line.found == "free":
            yield Line(line.check, WARNING, "nobody listens there", "make up")
        else:
            yield line


def gpu_lines() -> Iterator[Line]:
    """Whether a GPU is there for the backend, and torch computes on it."""
    values = settings.values()
    found = gpu.gpus()
    for fault in cuda.faults(cuda.gpus(), versions.minimums()):
        yield from told([Check(*fault[:3], host_checks.WARNING, fault[3])])
    lines = list(told(gpu.checks(values, found, True)))
    if settings.enabled(values, "GPU") and all(line.level == OK for line in lines):
        try:
            up.check_gpu()
        except UserError as error:
            lines = [Line("GPU", FAILED, str(error))]
    if found and not settings.enabled(values, "GPU"):
        lines = [Line("GPU", WARNING, f"{', '.join(found)} is there and not used", "make up GPU=1")]
    yield from lines


def lan_lines() -> Iterator[Line]:
    """Whether this host reaches the addresses on the LAN: without a shim it cannot."""
    values = settings.values()
    if not settings.enabled(values, "MACVLAN"):
        yield Line("LAN", OK, "MACVLAN is off: no addresses of their own")
        return
    yield from told(macvlan.checks(values, True))
    for name, port in (("LABEL_STUDIO_ADDRESS", 8080), ("BACKEND_ADDRESS", 9090)):
        where = f"{values[name]}:{port}"
        try:
            socket.create_connection((values[name], port), timeout=2).close()
        except OSError as error:
            yield Line(
                "LAN", WARNING, f"this host does not reach {where} ({error}), others may",
                "a host needs a shim to reach its own macvlan containers: docs/network.md", name,
            )  # fmt: skip
        else:
            yield Line("LAN", OK, f"{where} is reached from this host", subject=name)


def machine_lines() -> Iterator[Line]:
    minimums = versions.minimums()
    engine = docker_engine.find_engine()
    tags = versions.images()
    needs = system.disk_needs(
        minimums, Path(engine.root or "/var/lib/docker"), set(tags), True, False
    )
    yield from told(system.check_disk(needs))
    memory = system.memory_gb(Path("/proc/meminfo").read_text())
    yield from told([system.check_memory(memory, float(minimums["memory_gb"]))])


def clock_line() -> Iterator[Line]:
    """Whether the clock is set from the network, as far as systemd tells."""
    said = commands.output(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if said == "no":
        fix = "sudo timedatectl set-ntp true"
        yield Line("clock", WARNING, "this host's clock is not set by NTP", fix)
    elif said == "yes":
        yield Line("clock", OK, "set by NTP")
    else:
        yield Line("clock", SKIPPED, "not looked at: no timedatectl tells")


def setting_lines() -> Iterator[Line]:
    values = settings.values()
    text = settings.env_text()
    written = settings.parse_env(text)
    given = {n for n in values for layer in (os.environ, written) if settings.is_given(n, layer)}
    yield from told([
        *configuration.check_settings(
            configuration.to_look_at(values, settings.declared(), given)
        ),
        *configuration.check_names(written, settings.declared()),
        *configuration.check_references(settings.references(text)),
        *configuration.check_folders(values),
    ])  # fmt: skip


def database_line() -> Iterator[Line]:
    yield from told(database.checks(settings.values(), True))


def address_lines() -> Iterator[Line]:
    """Asks as a browser on this host does: the address that people open, else the port."""
    url = up.address(settings.values())
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.doctor.address", url],
        env={**os.environ, "PYTHONPATH": str(ROOT / "backend"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.stderr:
        raise UserError(done.stderr.strip().splitlines()[-1])
    yield from map(from_json, done.stdout.splitlines())


def from_json(text: str) -> Line:
    """A line that the look from inside printed as JSON."""
    row = json.loads(text)
    return Line(row["check"], row["level"], row["found"], row["fix"], row["subject"])


HOST: Mapping[str, Callable[[], Iterator[Line]]] = {
    "engine": engine_lines,
    "settings": setting_lines,
    "disk": machine_lines,
    "clock": clock_line,
    "database": database_line,
    "GPU": gpu_lines,
    "LAN": lan_lines,
    "containers": containers,
    "ports": port_lines,
    "address": address_lines,
}
"""What is looked at here, by the name under which a look that fails itself is told."""
BOTH = ("disk", "clock", "database", "address")
"""Those that are looked at from inside, too."""


def look(name: str, ask: Callable[[], Iterator[Line]]) -> Iterator[Line]:
    """The lines of a check; one that fails is a line, and the others go on."""
    try:
        yield from ask()
    except UserError as error:
        yield Line(name, FAILED, str(error))
    except Exception as error:
        yield Line(name, FAILED, f"the check itself failed: {type(error).__name__}: {error}")


# From inside


def inside(project: str, only: Sequence[str] = ()) -> Iterator[Line]:
    """What `ls-yolo doctor` says in a container of the service setup, as it says it."""
    if not compose.output("ps", "--all", "--quiet").strip():
        # A run would make networks and volumes.
        yield Line("services", SKIPPED, "not looked at: no container is there")
        return
    words = ["ls-yolo", "doctor", "--json", *(("--project", project) if project else ()),
             *(word for name in only for word in ("--only", name))]  # fmt: skip
    # Nothing is started for it: what is down is a finding.
    command = compose.command("--ansi", "never", "--progress", "quiet", "run", "--rm", "--no-deps",
                              "-T", "setup", *words)  # fmt: skip
    # Two pipes: on one, a line of either may begin in the middle of the other's.
    with subprocess.Popen(
        command, env=compose.environment(secrets=True), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        said = commands.Reader(process.stderr)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(b"{"):
                yield from_json(line.decode())
    # The exit code alone does not tell: Python's own for a crash is that of a warning.
    lines = said.text().splitlines() or [f"exit code {process.returncode}"]
    if COMPLETE not in lines:
        last = lines[-1].strip()
        yield Line("services", FAILED, f"the look from inside did not come to its end: {last}",
                   "make up")  # fmt: skip


def all_lines(project: str, only: Sequence[str] = ()) -> Iterator[Line]:
    for name, ask in HOST.items():
        if not only or name in only:
            yield from look(name, ask)
    there = [name for name in only if name not in HOST or name in BOTH]
    if only and not there:
        return
    try:
        docker.client()
    except UserError:
        return  # told above
    yield from look("services", lambda: inside(project, there))


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="doctor.py")
    parser.add_argument("--project", default="", help="this project alone: its id or title")
    parser.add_argument("--only", action="append", default=[], metavar="CHECK",
                        help="this check alone; may be repeated")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    options = parser.parse_args(arguments)
    code = 0
    for line in all_lines(options.project, options.only):
        say(json.dumps(line.as_json(), ensure_ascii=False) if options.json else str(line))
        code = max(code, CODES[line.level])
    return code


if __name__ == "__main__":
    run_main(main)
