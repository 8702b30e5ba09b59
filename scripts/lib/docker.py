"""Which docker client to use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lib import commands, versions
from lib.cli import UserError


def clients() -> list[str]:
    """Every docker client, in the order of the PATH: an older one may stand first."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = (shutil.which("docker", path=folder) for folder in folders if folder)
    unique: dict[Path, str] = {}
    for client in found:
        if client:
            unique.setdefault(Path(client).resolve(), client)
    return list(unique.values())


def choose(clients: Sequence[str], ask: Callable[[Sequence[str]], str | None]) -> str | None:
    """The first client that has compose and buildx and is new enough, else the first."""
    for client in clients:
        version = ask([client, "version", "--format", "{{.Client.Version}}"])
        # An old client prints its version although no engine answers, but exits non-zero.
        version = version or ask([client, "--version"]) or ""
        if (
            versions.at_least(version, versions.minimums()["docker_engine"])
            and ask([client, "compose", "version"]) is not None
            and ask([client, "buildx", "version"]) is not None
        ):
            return client
    return clients[0] if clients else None


_client: str | None = None


def client() -> str:
    """The docker client to use. Asked again until there is one: it may be installed meanwhile."""
    global _client
    if _client is None:
        _client = choose(clients(), commands.output)
        if _client is None:
            raise UserError("no docker client was found. Run: python3 scripts/install_engine.py")
    return _client


def forget() -> None:
    """After an installation: look for the client again."""
    global _client
    _client = None


def containers(
    project: str, service: str, running: bool = False, one_off: bool = False
) -> list[str]:
    """The ids of a service's containers in a Compose project, by their labels.

    running: those alone that run.
    one_off: those that ``compose run`` has made, in place of the service's own.
    """
    labels = {"project": project, "service": service, "oneoff": str(one_off)}
    filters = [
        word
        for name, value in labels.items()
        for word in ("--filter", f"label=com.docker.compose.{name}={value}")
    ]
    every = [] if running else ["--all"]
    return (commands.output([client(), "ps", *every, "--quiet", *filters]) or "").split()
