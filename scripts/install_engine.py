#!/usr/bin/env python3
"""Brings what is missing of engine, client, compose and buildx on Debian or Ubuntu, and starts it.

What is there is left alone. Sources, the first that serves:
  1. docker: Docker's own apt repository, where it answers;
  2. distribution: the distribution's packages, where they are new enough;
  3. trixie: on Debian 12 alone, Debian 13's packages by name, its suite pinned so low that nothing
     else ever comes from it.
Or, where --packages names a folder of .deb files, from that alone: nothing is asked for elsewhere.
Needs root or sudo. Says what it does before it does it. Safe to run again, also after being killed.
`make up` and the Ansible role docker both run this: there is no other way that one comes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from host import apt, docker_engine, system
from host.docker_engine import Engine
from lib import commands, docker, net, settings, versions
from lib.cli import TO_DO, UserError, run_main, say

LOG = Path("/var/log/ls-yolo-dockerd.log")
DOCKER_REPOSITORY = "https://download.docker.com/linux"
DOCKER_KEY = Path("/etc/apt/keyrings/docker.asc")
DOCKER_SOURCE = Path("/etc/apt/sources.list.d/docker.sources")
TRIXIE_SOURCE = Path("/etc/apt/sources.list.d/ls-yolo-trixie.sources")
TRIXIE_PIN = Path("/etc/apt/preferences.d/ls-yolo-trixie")
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Where parts may come from, in the order of preference.
SOURCES = ("docker", "distribution", "trixie")

# Package of each part, by source. On Ubuntu the client comes with docker.io.
PACKAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "docker": {
        "engine": ("docker-ce", "containerd.io"),
        "client": ("docker-ce-cli",),
        "compose": ("docker-compose-plugin",),
        "buildx": ("docker-buildx-plugin",),
    },
    "debian": {
        "engine": ("docker.io", "iptables"),
        "client": ("docker-cli",),
        "compose": ("docker-compose",),
        "buildx": ("docker-buildx",),
    },
    "ubuntu": {
        "engine": ("docker.io", "iptables"),
        "client": ("docker.io",),
        "compose": ("docker-compose-v2",),
        "buildx": ("docker-buildx",),
    },
}


# What to install, from where: decided without touching anything


@dataclass(frozen=True)
class Facts:
    """What the choice depends on. ``candidates``: package to the version that apt would install.
    ``sources``: those that may be used, of SOURCES.
    """

    family: str
    codename: str
    lacks: tuple[str, ...]
    docker_repository: bool
    candidates: Mapping[str, str]
    sources: tuple[str, ...] = SOURCES
    repository: str = DOCKER_REPOSITORY


@dataclass(frozen=True)
class Plan:
    source: str  # docker, distribution or trixie
    packages: tuple[str, ...]
    why: str


def packages_for(source: str, lacks: Iterable[str]) -> tuple[str, ...]:
    """The packages of the missing parts, each once."""
    return tuple(dict.fromkeys(name for part in lacks for name in PACKAGES[source][part]))


def new_enough(
    source: str, lacks: Iterable[str], candidates: Mapping[str, str], needed: Mapping[str, str]
) -> str:
    """Empty if the packages of a source serve; else what is wrong with them."""
    keys = {"engine": "docker_engine", "compose": "compose", "buildx": "buildx"}
    for part in lacks:
        package = PACKAGES[source][part][0]
        found = candidates.get(package, "")
        if not found:
            return f"{package} is not there"
        if part in keys and not versions.at_least(found, needed[keys[part]]):
            return f"{package} is {found}, {needed[keys[part]]} is needed"
    return ""


def choose(facts: Facts, needed: Mapping[str, str]) -> Plan:
    """Where the missing parts come from.

    Raises:
        UserError: no source serves.
    """
    if facts.docker_repository and "docker" in facts.sources:
        return Plan("docker", packages_for("docker", facts.lacks), f"{facts.repository} answers")
    wrong = new_enough(facts.family, facts.lacks, facts.candidates, needed)
    silent = (
        f"{facts.repository} does not answer"
        if "docker" in facts.sources
        else f"{facts.repository} is not to be used"
    )
    if not wrong and "distribution" in facts.sources:
        return Plan(
            "distribution",
            packages_for(facts.family, facts.lacks),
            f"{silent}; this system's packages are new enough",
        )
    if not wrong:
        wrong = "they are not to be used"
    bookworm = facts.family == "debian" and facts.codename == "bookworm"
    if bookworm and "trixie" in facts.sources:
        names = packages_for("debian", facts.lacks)
        # Debian 12's own is too old for that one. A newer one that is there already stays.
        if "engine" in facts.lacks and not versions.at_least(
            facts.candidates.get("containerd", ""), "1.7"
        ):
            names = (*names, "containerd")
        return Plan(
            "trixie",
            tuple(name if name == "iptables" else f"{name}/trixie" for name in names),
            f"{silent}, and Debian 12's packages do not serve ({wrong}); Debian 13's (trixie) do",
        )
    more = ", or allow Debian 13's packages (trixie), which serve" if bookworm else ""
    raise UserError(
        f"no source for {', '.join(facts.lacks)}: {silent}, and this "
        f"system's packages do not serve ({wrong}). Connect this machine to either{more}, or "
        f"install by hand: {docker_engine.DOCS}"
    )


def choose_of_folder(
    family: str, lacks: Iterable[str], candidates: Mapping[str, str], needed: Mapping[str, str]
) -> tuple[str, ...]:
    """The packages of the missing parts in a folder, be they Docker's own or the distribution's.

    Raises:
        UserError: it has not all of them.
    """
    wrong = {source: new_enough(source, lacks, candidates, needed) for source in ("docker", family)}
    for source, fault in wrong.items():
        if not fault:
            # Where an older one is installed already, nothing would ask for the one that is here.
            more = ("containerd",) if "containerd" in candidates and source != "docker" else ()
            return (*packages_for(source, lacks), *more)
    raise UserError(
        f"the folder of packages does not serve: {' and '.join(wrong.values())}. It must hold "
        f"those of {', '.join(lacks)} for this system, with all that they need"
    )


def docker_source(
    family: str, codename: str, architecture: str, repository: str = DOCKER_REPOSITORY
) -> str:
    return (
        "# Written by ls-yolo (scripts/install_engine.py), as Docker's own manual says.\n"
        f"Types: deb\nURIs: {repository}/{family}\nSuites: {codename}\n"
        f"Components: stable\nArchitectures: {architecture}\nSigned-By: {DOCKER_KEY}\n"
    )


def trixie_source(mirror: str) -> str:
    return (
        "# Written by ls-yolo (scripts/install_engine.py): Debian 12's own Docker is too old.\n"
        f"# {TRIXIE_PIN} keeps everything else from coming from here.\n"
        f"Types: deb\nURIs: {mirror}\nSuites: trixie\nComponents: main\n"
        f"Signed-By: {DEBIAN_KEYRING}\n"
    )


def trixie_pin(packages: Iterable[str]) -> str:
    names = [name.removesuffix("/trixie") for name in packages if name.endswith("/trixie")]
    return (
        "# Written by ls-yolo (scripts/install_engine.py): nothing comes from trixie\n"
        "Package: *\nPin: release n=trixie\nPin-Priority: 50\n\n"
        "# but these, so that they keep getting its corrections.\n"
        f"Package: {' '.join(names)}\nPin: release n=trixie\nPin-Priority: 500\n"
    )


def names_of(*sources: str) -> list[str]:
    """The packages whose versions decide what is taken."""
    return [
        *(name for source in sources for part in PACKAGES[source].values() for name in part),
        "containerd",
    ]


def add_docker_repository(host: apt.Host, family: str, codename: str, repository: str) -> bool:
    """Adds Docker's repository; False, with nothing left of it, if it cannot be used after all."""
    if f"{repository}/{family}" in apt.sources():
        return True
    try:
        with net.fetch(
            f"{repository}/{family}/gpg", ca_bundle=settings.values()["CA_BUNDLE"]
        ) as response:
            key = response.read()
    except (OSError, ValueError):
        return False
    architecture = commands.output(["dpkg", "--print-architecture"]) or "amd64"
    host.write(DOCKER_KEY, key)
    host.write(DOCKER_SOURCE, docker_source(family, codename, architecture, repository))
    host.apt("update", check=False)
    if host.candidates("docker-ce"):
        return True
    say("Docker's repository cannot be used from here; it is taken out again")
    host.run("rm", "-f", str(DOCKER_SOURCE), str(DOCKER_KEY))
    return False


def install(
    engine: Engine, sources: tuple[str, ...], repository: str, packages: Path | None
) -> None:
    release = system.os_release()
    name, codename = system.family(release), release.get("VERSION_CODENAME", "")
    if name == "ubuntu":
        codename = release.get("UBUNTU_CODENAME", codename)
    if not name:
        raise UserError(
            f"found {release.get('PRETTY_NAME', 'an unknown system')}; only on Debian and Ubuntu "
            f"is the Docker Engine installed for you. Install it by hand, then run make up again: "
            f"{docker_engine.DOCS}"
        )
    host = apt.Host(packages)
    say(f"Missing: {', '.join(engine.lacks())}. To be installed with apt, as root:")
    # An earlier run that was killed may have left packages half configured.
    host.run("dpkg", "--configure", "-a")
    if packages:
        found = host.candidates(*names_of("docker", name))
        names = choose_of_folder(name, engine.lacks(), found, versions.minimums())
    else:
        names = from_network(host, name, codename, engine, sources, repository)
    # --no-remove: if another container runtime is in the way, stop rather than take it out.
    host.apt("install", "-y", "--no-install-recommends", "--no-remove", *names)
    docker.forget()


def from_network(
    host: apt.Host,
    name: str,
    codename: str,
    engine: Engine,
    sources: tuple[str, ...],
    repository: str,
) -> tuple[str, ...]:
    """The packages to install, of a source that is added where it is not there.

    Raises:
        UserError: no source serves.
    """
    # Sources that have nothing to do with us may be down; ours are looked at below.
    host.apt("update", check=False)
    if not net.HOST_CA.exists():
        host.apt("install", "-y", "--no-install-recommends", "ca-certificates")

    probe = f"{repository}/{name}/dists/{codename}/Release"
    has_docker = (
        "docker" in sources
        and net.answers(probe, ca_bundle=settings.values()["CA_BUNDLE"])
        and add_docker_repository(host, name, codename, repository)
    )
    found = host.candidates(*names_of(name))
    plan = choose(
        Facts(name, codename, engine.lacks(), has_docker, found, sources, repository),
        versions.minimums(),
    )
    say(f"{plan.why}. From there: {', '.join(plan.packages)}")
    if plan.source == "trixie" and not re.search(r"\btrixie\b", apt.sources()):
        say(f"Debian 13 is added in {TRIXIE_SOURCE}, pinned low: nothing else comes from it")
        host.write(
            TRIXIE_PIN, trixie_pin(plan.packages)
        )  # first, so that the source never counts unpinned
        host.write(TRIXIE_SOURCE, trixie_source(apt.debian_mirror()))
        host.apt("update", check=False)
    return plan.packages


# Starting it


def init_system(systemd: bool, first_process: str, has_script: bool) -> str:
    """Which way to start a service: ``systemd``, ``service`` (SysV, WSL) or ``none``."""
    if systemd:
        return "systemd"
    return "service" if first_process == "init" and has_script else "none"


def stale_pid_file(path: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a pid file names a process that is not the program that wrote it, or has ended."""
    try:
        name, alive = process_of(int(path.read_text()), proc)
    except ValueError:
        return True
    except OSError:
        return False
    return not alive or name not in ("dockerd", "containerd")


def process_of(number: int, proc: Path = Path("/proc")) -> tuple[str, bool]:
    """Name of a process, and whether it lives: one that nobody has waited for (Z) does not."""
    try:
        name, _, rest = (proc / str(number) / "stat").read_text().rpartition(")")
    except OSError:
        return "", False
    return name.partition("(")[2], rest.split()[0] not in ("Z", "X")


def wait_for(
    ready: Callable[[], bool], seconds: float, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Whether ``ready`` comes true in time; ends early when it cannot any more."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end or not alive():
            return False
        time.sleep(0.5)
    return True


def running() -> bool:
    """Whether the Docker Engine answers, also to a user who may not speak to it."""
    docker.forget()
    return docker_engine.find_engine().state in ("answers", "denied")


def start(log: Path = LOG) -> None:
    """Starts the Docker Engine and waits until it answers."""
    root = commands.as_root()
    process = 0
    comm = Path("/proc/1/comm")
    way = init_system(
        Path("/run/systemd/system").is_dir(),
        comm.read_text().strip() if comm.exists() else "",
        Path("/etc/init.d/docker").exists(),
    )
    if way == "systemd":
        say("Starting the engine: systemctl enable --now docker")
        subprocess.run([*root, "systemctl", "enable", "--now", "docker"], stdin=subprocess.DEVNULL)
        where = "journalctl -u docker"
    elif way == "service":
        say("Starting the engine: service docker start")
        subprocess.run([*root, "service", "docker", "start"], stdin=subprocess.DEVNULL)
        where = "/var/log/docker.log"
    else:
        program = docker_engine.daemon()
        if not program:
            raise UserError(f"found no dockerd to start. Install the engine: {docker_engine.DOCS}")
        say(f"No init system runs here: starting {program} itself. Its log is {log}")
        for pid_file in ("/run/docker.pid", "/run/docker/containerd/containerd.pid"):
            if stale_pid_file(Path(pid_file)):
                subprocess.run([*root, "rm", "-f", pid_file])
        # A session of its own, so that closing this terminal or stopping make does not end it.
        shell = f"setsid {program} >>{log} 2>&1 </dev/null & echo $!"
        process = int(commands.output([*root, "sh", "-c", shell]) or 0)
        where = str(log)
    if wait_for(running, 30, lambda: not process or process_of(process)[1]):
        return
    lines = tail_of(way, root, log)
    raise UserError(
        f"the Docker Engine did not start. The end of its log ({where}):\n{lines}\n"
        "Put right what the log names, then run this again. Inside a container it needs one "
        "that is privileged and has a volume at /var/lib/docker"
    )


def tail_of(way: str, root: Sequence[str], log: Path) -> str:
    command = ["tail", "-n", "15", str(log)]
    if way == "systemd":
        command = ["journalctl", "-u", "docker", "-n", "15", "--no-pager", "-o", "cat"]
    return commands.output([*root, *command]) or "(empty)"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sources",
        default=",".join(SOURCES),
        help="those that may be used, with commas (all: %(default)s)",
    )
    parser.add_argument(
        "--repository",
        default=DOCKER_REPOSITORY,
        metavar="URL",
        help="a mirror of Docker's repository (%(default)s)",
    )
    parser.add_argument(
        "--packages",
        type=Path,
        metavar="FOLDER",
        help="a folder of .deb files, to install from that alone",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help=f"change nothing; exit code 0: all is there, {TO_DO}: something is to be done",
    )
    options = parser.parse_args(arguments)
    options.sources = tuple(options.sources.split(","))
    options.repository = options.repository.rstrip("/")
    if unknown := [name for name in options.sources if name not in SOURCES]:
        raise UserError(f"--sources: found {', '.join(unknown)}, expected some of {list(SOURCES)}")
    if options.packages and not options.packages.is_dir():
        raise UserError(f"--packages: found no folder {options.packages}")
    return options


def main(arguments: Sequence[str] = ()) -> int:
    options = parse(arguments)
    engine = docker_engine.find_engine()
    if docker_engine.engine_is_fine(engine):
        say(f"Docker Engine {engine.version} answers; nothing to install")
        return 0
    if old := engine.too_old(versions.minimums()):
        raise UserError(
            f"{', '.join(old)}: older than what scripts/minimums.yml asks for, and left alone. "
            f"Run make preflight to see the versions; install newer ones: {docker_engine.DOCS}"
        )
    if options.dry_run:
        what = (
            f"install {', '.join(engine.lacks())}" if engine.lacks() else "start the Docker Engine"
        )
        say(f"To do: {what}")
        return TO_DO
    if engine.lacks():
        install(engine, options.sources, options.repository, options.packages)
    if not running():
        start()
    engine = docker_engine.find_engine()
    if engine.state == "denied":
        raise UserError(
            "the Docker Engine runs, but this user may not use it. Run: "
            f"sudo usermod -aG docker {os.environ.get('USER', '$USER')}   then log in again "
            "(or run: newgrp docker), and run this again"
        )
    if not docker_engine.engine_is_fine(engine):
        raise UserError(
            f"after the installation there is still something wrong: {engine}. "
            f"Run make preflight, or install by hand: {docker_engine.DOCS}"
        )
    say(f"Docker Engine {engine.version}, compose {engine.compose}, buildx {engine.buildx}")
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
