"""The projects of Label Studio, and how their labels map to the classes of the models."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.errors import RequestError
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.client import ASK_TIMEOUT, Studio, StudioError, reason
from ls_yolo.serving.mapping import Mapped, MappingError, mapping

log = logging.getLogger(__name__)

MOST = 50
"""Projects that are shown, the newest: each costs Label Studio a question."""
OF_MODELS = ("name", "version", "task", "state", "error", "classes")
"""What is known of a model that a mapping depends on."""
LIFETIME = 30.0
"""Seconds that its answers hold."""
PATIENCE = 2.0
"""Seconds that a page waits for them, where there are none yet; it never waits for newer ones."""


@dataclass(frozen=True)
class Project:
    """A project as Label Studio has it. models: what its connection names, empty for the default;
    connected: whether it has one. fault: why that cannot be read, else empty."""

    number: int
    title: str
    config: str
    models: tuple[str, ...] = ()
    connected: bool = False
    tasks: int = 0
    fault: str = ""


@dataclass(frozen=True)
class Shown:
    """A project, and how the labels of each of its controls map; or why that cannot be told."""

    project: Project
    controls: Sequence[Mapped] = ()
    fault: str = ""


@dataclass(frozen=True)
class Answer:
    """The projects, the newest first, as they were at ``at`` (`time.time`); None: not yet asked.
    fault: why there is nothing newer. more: how many there are beyond those."""

    projects: Sequence[Project] = ()
    at: float | None = None
    fault: str = ""
    more: int = 0


class Projects:
    """What ``ask`` says, kept for `LIFETIME` seconds. ``ask`` is called in a thread of its own, one
    at a time, so that a slow Label Studio holds up no page."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer = Answer()
        self._asked = -LIFETIME
        self._asking: threading.Thread | None = None

    def get(self) -> Answer:
        """What is known; what is older than that is asked anew meanwhile."""
        with self._lock:
            running = self._asking
            if running is None and time.monotonic() - self._asked >= LIFETIME:
                running = threading.Thread(target=self._refresh, name="projects", daemon=True)
                self._asking = running
                running.start()
            known = self._answer.at is not None or self._answer.fault
        if running is not None and not known:
            running.join(PATIENCE)
        with self._lock:
            if self._answer.at is None and not self._answer.fault:
                return Answer(fault="Label Studio has not answered yet; this page asks again")
            return self._answer

    def _refresh(self) -> None:
        try:
            new = self._ask()
        except StudioError as error:
            new = Answer(self._answer.projects, self._answer.at, str(error), self._answer.more)
        except Exception as error:  # or nobody would be told, and nobody ask again
            log.exception("the projects of Label Studio could not be read")
            new = Answer(self._answer.projects, self._answer.at, reason(error), self._answer.more)
        with self._lock:
            self._answer, self._asked, self._asking = new, time.monotonic(), None


def of_studio(studio: Studio | None) -> Callable[[], Answer]:
    """What asks ``studio`` for its projects and their connections.

    Raises (what it returns): StudioError: Label Studio is not reached or refuses.
    """

    def ask() -> Answer:
        if studio is None:
            raise StudioError(
                "LABEL_STUDIO_API_KEY: found nothing, expected a token of Label Studio, "
                "to read its projects with"
            )
        api: Any = studio.client
        options = {"timeout_in_seconds": ASK_TIMEOUT, "max_retries": 0}
        try:
            studio.headers()
            page = api.projects.list(
                page_size=MOST,
                include="id,title,label_config,task_number",  # other counts cost it more
                request_options=options,
            )
        except (httpx.HTTPError, ApiError, ValueError) as error:
            raise StudioError(f"projects: unavailable from {studio.url}: {reason(error)}") from None
        rows = list(page.items or [])
        total = int(getattr(page.response, "count", None) or len(rows))
        return Answer([_project(studio, row) for row in rows], time.time(), "", total - len(rows))

    return ask


def _project(studio: Studio, row: Any) -> Project:
    rows = studio.connections(int(row.id))
    fault = ""
    models: tuple[str, ...] = ()
    try:
        models = selection.of_connections(rows)
    except RequestError as error:
        fault = str(error)
    return Project(
        int(row.id),
        str(row.title or ""),
        str(row.label_config or ""),
        models,
        bool(rows),
        int(row.task_number or 0),
        fault,
    )


def shown(
    projects: Sequence[Project], rows: Sequence[Mapping[str, Any]], default: str = ""
) -> list[Shown]:
    """How the labels of ``projects`` map to the classes of the models that ``rows`` tells of; see
    `mapping`. Those without a connection are shown as they are."""
    known = json.dumps([{name: row.get(name) for name in OF_MODELS} for row in rows])
    return [_shown(project, known, default) for project in projects]


def _shown(project: Project, known: str, default: str) -> Shown:
    if not project.connected or project.fault:
        return Shown(project, fault=project.fault)
    return Shown(project, *_mapped(project.config, project.models, known, default))


@lru_cache(maxsize=2 * MOST)
def _mapped(
    config: str, models: tuple[str, ...], known: str, default: str
) -> tuple[Sequence[Mapped], str]:
    """What `mapping` says, or why that cannot be told: once for the same labels and models, since
    the process has predictions to make. ``known``: `OF_MODELS` of all models, as JSON."""
    try:
        return mapping(config, models, json.loads(known), default), ""
    except (RequestError, MappingError) as error:
        return (), str(error)
