"""The database that this installation began with: with another one Label Studio would be empty."""

from __future__ import annotations

from collections.abc import Mapping

from host.checks import STOP, Check
from lib import commands, docker, settings


def check(wanted: bool, project: str, volumes: set[str]) -> Check:
    """``wanted``: PostgreSQL. ``volumes``: names of those that the Docker Engine has."""
    sqlite, postgres = f"{project}_label-studio-data", f"{project}_postgres-data"
    if wanted and sqlite in volumes and postgres not in volumes:
        return Check(
            "database", f"projects are kept in SQLite (volume {sqlite})", "PostgreSQL", STOP,
            "To keep them as they are: POSTGRES=0. To move: make backup POSTGRES=0, make destroy, "
            "then make restore POSTGRES=1 FILE=... (docs/backup.md)",
        )  # fmt: skip
    if not wanted and postgres in volumes:
        return Check(
            "database", f"projects are kept in PostgreSQL (volume {postgres})", "SQLite", STOP,
            "To keep them as they are: POSTGRES=1 in .env. To begin anew with SQLite: make destroy",
        )  # fmt: skip
    return Check("database", "PostgreSQL" if wanted else "SQLite", "as before")


def checks(values: Mapping[str, str], answers: bool) -> list[Check]:
    """The one line about the database. ``answers``: there is a Docker Engine to ask."""
    listed = commands.output([docker.client(), "volume", "ls", "--quiet"]) if answers else ""
    wanted = settings.enabled(values, "POSTGRES")
    return [check(wanted, values["COMPOSE_PROJECT_NAME"], set((listed or "").split()))]
