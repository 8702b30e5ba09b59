"""The last step of a restore, which is gone through to its end whatever comes between.

All is staged beside what runs. Then a file says so, and from there on whoever starts the services
finishes first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from host import volumes
from lib import ROOT, commands, docker, files
from lib.cli import UserError, say
from lib.postgres import Server

ANSWERS_WITHIN = 60.0  # seconds


def journal(values: Mapping[str, str]) -> Path:
    """The file that is there from the moment that all is staged until all is in its place."""
    return ROOT / ".cache" / f"restore-{values['COMPOSE_PROJECT_NAME']}.json"


def begin(values: Mapping[str, str], archive: str, names: list[str], postgres: bool) -> None:
    """From here on it is finished, not given up. ``names``: of the parts that are staged."""
    # What is staged must outlive a loss of power, if what it replaces is to go.
    os.sync()
    path = journal(values)
    path.parent.mkdir(exist_ok=True)
    files.write_private(
        path, json.dumps({"archive": archive, "parts": names, "postgres": postgres})
    )


def finish(values: Mapping[str, str]) -> bool:
    """Finishes a restore that was begun; whether there was one. Services are stopped for it.

    Raises:
        UserError: something cannot be moved; the same again goes on from there.
    """
    said = _read(journal(values))
    if said is None:
        return False
    say("putting what is restored in its place")
    project = values["COMPOSE_PROJECT_NAME"]
    running = [
        container
        for service in ("label-studio", "backend")
        for container in docker.containers(project, service, running=True)
    ]
    if running:
        commands.run([docker.client(), "stop", "--time", "60", *running], stdout=subprocess.DEVNULL)
    for part in volumes.parts(values, datasets=True):
        if part.name in said["parts"]:
            part.run("commit")
    if said["postgres"]:
        with postgres(project) as server:
            server.exchange()
    journal(values).unlink()
    return True


def begun(values: Mapping[str, str]) -> str:
    """The name of the archive whose restore was begun and is not finished; empty without one."""
    said = _read(journal(values))
    return str(said["archive"]) if said else ""


def need_none(values: Mapping[str, str]) -> None:
    """Raises: UserError: a restore was begun and is not finished."""
    if begun(values):
        raise UserError("a restore is half done. Run make up, which finishes it, then this again")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        said: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return said


@contextlib.contextmanager
def postgres(project: str) -> Iterator[Server]:
    """PostgreSQL, whose container is started for this while where it does not run.

    Raises:
        UserError: there is none, or it does not answer within a minute.
    """
    running = docker.containers(project, "postgres", running=True)
    found = running or docker.containers(project, "postgres")
    if not found:
        raise UserError("found no container of PostgreSQL. Run: make up")
    docker_client, container = docker.client(), found[0]
    if not running:
        commands.run([docker_client, "start", container], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + ANSWERS_WITHIN
        server = volumes.server(container)
        while not server.answers("--host=127.0.0.1"):  # where it listens once its data are made
            if time.monotonic() > end:
                raise UserError("PostgreSQL does not answer. Look at: make logs SERVICE=postgres")
            time.sleep(0.5)
        yield server
    finally:
        if not running:
            commands.output([docker_client, "stop", "--time", "60", container], 90)
