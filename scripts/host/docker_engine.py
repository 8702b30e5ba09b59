"""What is known about the Docker Engine on this host, without changing anything."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from host.checks import INSTALLABLE, STOP, Check
from lib import commands, docker, versions

DOCS = "https://docs.docker.com/engine/install/"
SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True)
class Engine:
    """The Docker Engine and its command-line parts as found; an empty version means "not there".

    ``state``: ``answers``, ``denied`` (it runs, this user may not speak to it), ``stopped`` (it is
    installed and does not answer) or ``missing``.
    """

    state: str
    version: str = ""
    client: str = ""
    compose: str = ""
    buildx: str = ""
    root: str = ""
    detail: str = ""

    def lacks(self) -> tuple[str, ...]:
        """Which parts an installation has to bring."""
        parts = {
            "engine": self.state != "missing",
            "client": self.client,
            "compose": self.compose,
            "buildx": self.buildx,
        }
        return tuple(name for name, there in parts.items() if not there)

    def too_old(self, needed: dict[str, str]) -> tuple[str, ...]:
        """Which parts are there but older than what is needed."""
        found = {"engine": self.version, "compose": self.compose, "buildx": self.buildx}
        keys = {"engine": "docker_engine", "compose": "compose", "buildx": "buildx"}
        return tuple(
            name
            for name, version in found.items()
            if version and not versions.at_least(version, needed[keys[name]])
        )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=5)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self.path)


def ask_socket(path: str) -> tuple[str, str]:
    """State and version of the Docker Engine behind a socket; needs no client."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/version")
        return "answers", str(json.load(connection.getresponse())["Version"])
    except PermissionError:
        return "denied", ""
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return "stopped", ""
    finally:
        connection.close()


def plain_version(text: str | None) -> str:
    """The version in what a plugin prints: ``Docker Compose version v2.40.3`` is ``2.40.3``."""
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+)", text or "")
    return found[1] if found else ""


def daemon() -> str | None:
    """The Docker Engine's program; it may lie where only root looks."""
    return shutil.which("dockerd") or shutil.which(
        "dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin"
    )


def data_root_of(config: Path = Path("/etc/docker/daemon.json")) -> str:
    """Where a Docker Engine that does not run would keep its data."""
    try:
        return str(json.loads(config.read_text()).get("data-root") or "/var/lib/docker")
    except (OSError, ValueError, AttributeError):
        return "/var/lib/docker"


def find_engine() -> Engine:
    """Looks for the Docker Engine, its client and the two plugins."""
    client = compose = buildx = version = detail = ""
    state = "stopped" if daemon() else "missing"
    root = data_root_of()
    if docker.clients():
        client = docker.client()
        compose = plain_version(commands.output([client, "compose", "version"]))
        buildx = plain_version(commands.output([client, "buildx", "version"]))
        version = commands.output([client, "version", "--format", "{{.Server.Version}}"]) or ""
    if version:
        state = "answers"
        root = commands.output([client, "info", "--format", "{{.DockerRootDir}}"]) or root
    elif host := os.environ.get("DOCKER_HOST"):
        # Someone has pointed the client elsewhere; installing a Docker Engine here would be no fix.
        state, detail = "unreachable", host
    elif SOCKET.exists():
        asked, version = ask_socket(str(SOCKET))
        state = state if asked == "stopped" else asked
    return Engine(state, version, client, compose, buildx, root, detail)


def images_built(tags: list[str]) -> set[str]:
    """Which of the images are there already."""
    if not docker.clients():
        return set()
    return {
        tag
        for tag in tags
        if commands.output([docker.client(), "image", "inspect", "-f", "{{.Id}}", tag]) is not None
    }


def engine_is_fine(engine: Engine) -> bool:
    return (
        engine.state == "answers" and not engine.lacks() and not engine.too_old(versions.minimums())
    )


# The Docker Engine


def check_engine(
    engine: Engine, needed: Mapping[str, str], installable: bool, user: str
) -> list[Check]:
    """Engine, client, compose and buildx. ``installable``: Debian or Ubuntu, and root at hand."""
    absent = INSTALLABLE if installable else STOP
    will = "It is installed by make up" if installable else f"Install it as root: {DOCS}"
    old = engine.too_old(dict(needed))
    want = needed["docker_engine"]
    checks = []

    if engine.state == "denied":
        checks.append(Check(
            "Docker Engine", "runs, but this user may not use it", want, STOP,
            f"Run: sudo usermod -aG docker {user}   then log in again (or run: newgrp docker)",
        ))  # fmt: skip
    elif engine.state == "unreachable":
        checks.append(Check(
            "Docker Engine", f"none answers at DOCKER_HOST={engine.detail}", want, STOP,
            "Start that Docker Engine, or unset DOCKER_HOST",
        ))  # fmt: skip
    elif engine.state == "missing":
        checks.append(Check("Docker Engine", "none", want, absent, will))
    elif engine.state == "stopped":
        fix = (
            "It is started by make up"
            if installable
            else "Start it as root: systemctl start docker"
        )
        checks.append(Check("Docker Engine", "installed, does not run", want, absent, fix))
    elif "engine" in old:
        checks.append(Check(
            "Docker Engine", engine.version, want, STOP,
            "It is left alone, because other containers may need it. Replace it by a newer one: "
            f"{DOCS}",
        ))  # fmt: skip
    else:
        checks.append(Check("Docker Engine", engine.version, want))

    for name, found in (("compose", engine.compose), ("buildx", engine.buildx)):
        if not found:
            checks.append(Check(name, "none", needed[name], absent, will))
        elif name in old:
            checks.append(Check(
                name, found, needed[name], STOP,
                f"Replace it by a newer one (package docker-{name}-plugin): {DOCS}",
            ))  # fmt: skip
        else:
            checks.append(Check(name, found, needed[name]))
    if not engine.client and engine.state != "missing":
        checks.append(Check("docker client", "none", "any", absent, will))
    return checks
