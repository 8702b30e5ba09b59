"""What is known about the container engine on this host, without changing anything."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from common import at_least, docker, docker_clients, minimums, output

SOCKET = Path("/var/run/docker.sock")


@dataclass(frozen=True)
class Engine:
    """The engine and its command-line parts as found; an empty version means "not there".

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
            if version and not at_least(version, needed[keys[name]])
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
    """State and version of the engine behind a socket; needs no client."""
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
    """The engine's program; it may lie where only root looks."""
    return shutil.which("dockerd") or shutil.which(
        "dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin"
    )


def data_root_of(config: Path = Path("/etc/docker/daemon.json")) -> str:
    """Where an engine that does not run would keep its data."""
    try:
        return str(json.loads(config.read_text()).get("data-root") or "/var/lib/docker")
    except (OSError, ValueError, AttributeError):
        return "/var/lib/docker"


def find_engine() -> Engine:
    """Looks for the engine, its client and the two plugins."""
    client = compose = buildx = version = detail = ""
    state = "stopped" if daemon() else "missing"
    root = data_root_of()
    if docker_clients():
        client = docker()
        compose = plain_version(output([client, "compose", "version"]))
        buildx = plain_version(output([client, "buildx", "version"]))
        version = output([client, "version", "--format", "{{.Server.Version}}"]) or ""
    if version:
        state = "answers"
        root = output([client, "info", "--format", "{{.DockerRootDir}}"]) or root
    elif host := os.environ.get("DOCKER_HOST"):
        # Someone has pointed the client elsewhere; installing an engine here would be no cure.
        state, detail = "unreachable", host
    elif SOCKET.exists():
        asked, version = ask_socket(str(SOCKET))
        state = state if asked == "stopped" else asked
    return Engine(state, version, client, compose, buildx, root, detail)


def images_built(tags: list[str]) -> set[str]:
    """Which of the images are there already."""
    if not docker_clients():
        return set()
    return {
        tag
        for tag in tags
        if output([docker(), "image", "inspect", "-f", "{{.Id}}", tag]) is not None
    }


def engine_is_fine(engine: Engine) -> bool:
    return engine.state == "answers" and not engine.lacks() and not engine.too_old(minimums())
