"""A project's connection to the kit's backend: what it should be, and what would be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ls_yolo.labelstudio import label_config
from ls_yolo.projects import state
from ls_yolo.projects.backend import Backend
from ls_yolo.projects.config import Project

Row = Mapping[str, Any]
"""A connection, as Label Studio's API gives it."""

COMPARED = ("url", "auth_method", "basic_auth_user", "is_interactive")
"""What can be seen of a connection; its password is never shown."""


def ours(rows: Sequence[Row], backend: Backend, project: Project) -> Row | None:
    """The connection of a project that stands for its ``models``; None where there is none."""
    return state.connection(rows, backend.address(project.models))


def settings(row: Row | None, backend: Backend, project: Project) -> dict[str, Any]:
    """What ``row``, or a new one, should have, but for its title."""
    url = backend.address(project.models)
    if row and str(row["url"]).rstrip("/") == backend.url.rstrip("/"):
        # Names of models in extra_params are as good as those in the URL.
        url = str(row["url"]) if state.models(row) == list(project.models) else url
    made: dict[str, Any] = {"url": url, "auth_method": "NONE"}
    if backend.password:
        made |= {
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": backend.user,
            "basic_auth_pass": backend.password,
        }
    if any(control.flag("smart") for control in label_config.parse(project.label_config)):
        made |= {"is_interactive": True}  # else the page never asks; people may want it too
    return made


def faults(row: Row, wanted: Mapping[str, Any]) -> list[str]:
    """Why a connection is to be changed, for people to read; empty: it is not."""
    said = [
        f"{key} would be {wanted.get(key)!r}"
        for key in COMPARED
        if (row.get(key) or None) != wanted.get(key) and (key != "is_interactive" or key in wanted)
    ]
    if str(row.get("state")) != "CO":
        said.append(f"its state is {row.get('readable_state') or row.get('state')}")
    elif not row.get("model_version"):
        said.append("it has no version")
    return said


def twins(rows: Sequence[Row], row: Row, url: str) -> list[Row]:
    """The connections of the very ``url`` beside ``row``."""
    return [other for other in rows if other["id"] != row["id"] and other["url"] == url]
