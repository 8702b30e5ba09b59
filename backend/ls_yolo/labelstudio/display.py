"""Which version's predictions people see: the one rule of `apply`, `prelabel` and `rollback`.

A project shows the version that its ``model_version`` names. Where that is also the title of a
connection, Label Studio asks its backend on opening a task, and shows what answers now. So

    title   model_version   people see
    V       V               V, and tasks that lack it are predicted when they are opened
    M       S               S, until V, which M's models are by now, is complete: then V, V
    V       S               S, for good: V was shown once, and somebody has gone back

Who asks whether V was shown already needs no memory but the title. M: the models' names, or an
older version.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import Studio, reason

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Display:
    """What a project shows now.

    named: its ``model_version``; empty: nothing. on: whether predictions are shown at all.
    connection: its first, which Label Studio asks; empty: none.
    """

    named: str
    on: bool
    connection: Mapping[str, Any]

    @property
    def title(self) -> str:
        return str(self.connection.get("title") or "")

    @property
    def current(self) -> str:
        """The version that the connection's models have, as Label Studio knows it."""
        return str(self.connection.get("model_version") or "")

    @property
    def live(self) -> bool:
        """Whether the backend is asked when a task is opened."""
        return bool(self.named) and self.title == self.named

    @property
    def shown(self) -> str:
        """The version whose predictions people see; empty: none."""
        if not self.on:
            return ""
        return self.current if self.live else self.named


def look(studio: Studio, project: int) -> Display:
    """What a project shows.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is away.
    """
    api: Any = studio.client
    found = api.projects.get(project)
    first = min(studio.connections(project), key=lambda row: int(row["id"]), default={})
    return Display(found.model_version or "", bool(found.show_collab_predictions), first)


def begin(studio: Studio, project: int, version: str, there: Collection[str], names: str) -> None:
    """Before ``version`` is predicted: what is shown stays, and where there is nothing to stay, the
    first of ``version`` are seen at once.

    Args:
        there: versions that have predictions.
        names: what a connection is called whose version is not complete.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is away.
    """
    found = look(studio, project)
    if found.on and found.live and found.named == names:
        return  # another shard is between the two changes below; else the backend's answer is seen
    if not found.on or found.named == version or found.named not in there:
        show(studio, project, version, there)
        return
    live = found.live and found.current == version
    if live and _rename(studio, project, found, names):  # which takes the name along
        _name(studio, project, found.named)


def end(studio: Studio, project: int, version: str, there: Collection[str]) -> str:
    """``version`` is complete: it is shown, unless it was before and somebody has gone back to
    another; returns that one, else nothing.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is away.
    """
    found = look(studio, project)
    if found.title == version != found.named and found.named in there and found.on:
        return found.named
    show(studio, project, version, there)
    return ""


def show(studio: Studio, project: int, version: str, there: Collection[str]) -> None:
    """Has a project show ``version``, whatever it showed before.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is away.
    """
    found = look(studio, project)
    # Of other models than the connection's, what is stored is shown, and nothing more predicted.
    rename = found.current == version != found.title
    # Cut off in between, it must not look as if somebody had gone back: the title comes last, but
    # where it takes the name along, or nothing else makes Label Studio take the name.
    if rename and (found.live or version not in there):
        _rename(studio, project, found, version)
        rename = False
    if (found.named != version or not found.on) and (
        version in there or look(studio, project).title == version
    ):
        _name(studio, project, version)
    if rename:
        _rename(studio, project, found, version)


def go_back(studio: Studio, project: int, version: str) -> None:
    """Has a project show a version that has predictions, until somebody has it show another, or
    a newer one is complete.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is away.
    """
    found = look(studio, project)
    if found.current == version:
        show(studio, project, version, {version})
        return
    if found.title == version:
        # Else the backend would still be asked, and what it answers be shown.
        _rename(studio, project, found, found.current or "default model")
    _name(studio, project, version)


def _name(studio: Studio, project: int, version: str) -> None:
    api: Any = studio.client
    api.projects.update(project, model_version=version, show_collab_predictions=True)


def _rename(studio: Studio, project: int, found: Display, title: str) -> bool:
    """Whether the first connection has that title now: Label Studio refuses where it cannot reach
    the backend, which nothing else depends on."""
    row = found.connection
    api: Any = studio.client
    # Label Studio tries the connection with what is sent here, but for the password, of which
    # nothing sent means the one that it has.
    more: dict[str, Any] = {
        key: row[key] for key in ("auth_method", "extra_params") if row.get(key)
    }
    if row.get("auth_method") == "BASIC_AUTH":
        more |= {"basic_auth_user": row.get("basic_auth_user"), "basic_auth_pass": ""}
    try:
        api.ml.update(str(row["id"]), url=row["url"], project=project, title=title, **more)
    except ApiError as error:
        log.warning("the connection to %s keeps its title: %s", row["url"], reason(error))
        return False
    return True
