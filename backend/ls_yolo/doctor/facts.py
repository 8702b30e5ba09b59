"""What checks look at, each asked for once: the two services' own words, and the projects."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx

from ls_yolo.doctor.base import Faulty, Unavailable
from ls_yolo.labelstudio import bulk, selection
from ls_yolo.labelstudio.client import Studio, StudioError, reason
from ls_yolo.projects.backend import Backend

T = TypeVar("T")
TIMEOUT = 15
"""Seconds that a service may take to say something of itself."""
ELSEWHERE = frozenset({401, 403, 404, 429, 502, 503, 504})
"""Answers that say more of who asks, or of what stands between, than of the service."""
LONG = 130
"""Seconds that a prediction may take to be told: more than Label Studio gives it."""
PAGE = 1000
"""Tasks that are read at a time."""


@dataclass(frozen=True)
class Timed:
    """An answer in JSON, how long it took in seconds, and when it was asked and had (seconds since
    1970): a clock that is right says something between the two."""

    content: Any
    seconds: float
    asked: float
    had: float


@dataclass(frozen=True)
class ProjectFacts:
    """A project of Label Studio: what its API says of it, and its connections, oldest first."""

    row: Mapping[str, Any]
    connections: Sequence[Mapping[str, Any]]

    @property
    def id(self) -> int:
        return int(self.row["id"])

    @property
    def title(self) -> str:
        return str(self.row.get("title") or self.id)

    @property
    def config(self) -> str:
        return str(self.row.get("label_config") or "")

    @property
    def first(self) -> Mapping[str, Any]:
        """The connection that Label Studio asks; empty where there is none."""
        return self.connections[0] if self.connections else {}

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the first connection names.

        Raises:
            SelectionError: they cannot be read.
        """
        return selection.of_connections(self.connections)


class Facts:
    """What is known of one installation. ``values``: the settings of the reader ``setup``.

    ``project``: the id or title of the one to look at; empty: all. ``known``: what need not be
    asked for, by the name that `once` is given. Whatever cannot be had is
    `Unavailable`, also when it is asked for again.
    """

    def __init__(
        self, values: Mapping[str, Any], project: str = "", known: Mapping[str, Any] | None = None
    ) -> None:
        self.values = values
        self.wanted = project
        self.studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"], TIMEOUT)
        self.backend = Backend(
            values["BACKEND_URL"], values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
        )
        self.root = Path(values["LOCAL_FILES_DOCUMENT_ROOT"])
        # One client for all: to make one takes longer than to ask.
        self._client = httpx.Client(timeout=TIMEOUT)
        self._auth: Any = None
        if self.backend.password:
            self._auth = (self.backend.user, self.backend.password)
        self._known: dict[str, Any] = dict(known or {})

    def once(self, name: str, ask: Callable[[], T]) -> T:
        """What ``ask`` returns or raises, asked once for each ``name``."""
        if name not in self._known:
            try:
                self._known[name] = ask()
            except Unavailable as error:
                self._known[name] = error
        if isinstance(self._known[name], Unavailable):
            raise self._known[name]
        found: T = self._known[name]
        return found

    # Label Studio

    def of_studio(self, path: str, **query: Any) -> Timed:
        """What Label Studio answers to a GET with the token.

        Raises:
            Unavailable: it is not reached, does not take the token, or refuses.
        """
        return self._asked(lambda: self._studio("GET", path, query), "Label Studio")

    def change(self, method: str, path: str, body: Any = None) -> Any:
        """What Label Studio answers to a call that changes something.

        Raises:
            Unavailable: it is not reached or refuses.
        """
        return self._asked(lambda: self._studio(method, path, None, body), "Label Studio").content

    def _studio(self, method: str, path: str, query: Any, body: Any = None) -> httpx.Response:
        return self._client.request(
            method, f"{self.studio.url}/{path}", params=query, json=body,
            headers=self.studio.headers(), timeout=TIMEOUT,
        )  # fmt: skip

    @property
    def diagnosis(self) -> Timed:
        """What Label Studio's process says of itself."""
        return self.once("diagnosis", self._diagnosis)

    def reach(self, url: str) -> dict[str, Any]:
        """What Label Studio's process says of the ML backend at ``url``. One alone: backends that
        are down take their time, and all of them more than a request may."""
        found: dict[str, Any] = self.once(
            f"backend {url}", lambda: self._diagnosis(url=url)
        ).content["backend"]
        return found

    def _diagnosis(self, **query: Any) -> Timed:
        try:
            answer = self.of_studio("api/ls-kit/diagnosis", **query)
        except Unavailable as error:
            if "answered 404" in str(error):
                raise Unavailable("this Label Studio is not the image of the kit") from None
            raise
        if not isinstance(answer.content, dict):
            raise Unavailable("this Label Studio is not the image of the kit")
        return answer

    def said(self, name: str) -> Any:
        """A part of `diagnosis`.

        Raises:
            Faulty: Label Studio's process could not find it out.
            Unavailable: as `diagnosis`.
        """
        found = self.diagnosis.content.get(name)
        if found is None or (isinstance(found, dict) and set(found) == {"error"}):
            why = found["error"] if found else "it does not say"
            raise Faulty(f"Label Studio's {name}: {why}")
        return found

    @property
    def addresses(self) -> list[str]:
        """The ML backends that Label Studio is to reach: BACKEND_URL, and those of connections."""
        urls = [self.values["BACKEND_URL"].rstrip("/")]
        with contextlib.suppress(Unavailable):
            urls += [str(row.get("url") or "") for one in self.projects for row in one.connections]
        return list(dict.fromkeys(url for url in urls if url))

    @property
    def projects(self) -> list[ProjectFacts]:
        """The projects to look at.

        Raises:
            Unavailable: also where there is no project of the name that was asked for.
        """

        def ask() -> list[ProjectFacts]:
            rows: list[Any] = []
            page = 1
            while True:
                found = self.of_studio("api/projects", page=page, page_size=100).content
                rows += found["results"]
                if not found.get("next"):
                    break
                page += 1
            if self.wanted:
                rows = [row for row in rows if self.wanted in (str(row["id"]), str(row["title"]))]
            return [
                ProjectFacts(row, sorted(
                    self.of_studio("api/ml", project=row["id"]).content, key=lambda one: one["id"]
                ))
                for row in sorted(rows, key=lambda one: one["id"])
            ]  # fmt: skip

        return self.once("projects", ask)

    @property
    def store(self) -> bulk.Calls | bulk.PlainStore:
        """What counts stored predictions. Raises: StudioError: Label Studio is not reached."""
        return self.once("store", lambda: bulk.store_of(self.studio))

    def first(self, project: ProjectFacts) -> Mapping[str, Any] | None:
        """The first task of a project; None where there is none."""
        found = self.once(f"first {project.id}", lambda: list(self.tasks(project.id, 1)))
        return next(iter(found), None)

    def tasks(self, project: int, most: int = 0) -> Iterator[Mapping[str, Any]]:
        """``id`` and ``data`` of the tasks of a project, by their ids, ``most`` of them (0: all).

        By ranges of the id, so that a page costs the same at the end of a million.
        """
        last = seen = 0
        while True:
            size = min(PAGE, most - seen) if most else PAGE
            query = {
                "ordering": ["tasks:id"],
                "filters": {"conjunction": "and", "items": [
                    {"filter": "filter:tasks:id", "operator": "greater", "type": "Number",
                     "value": last}]},
            }  # fmt: skip
            found = self.of_studio(
                "api/tasks", project=project, page_size=size, fields="task_only",
                include="id,data", query=json.dumps(query),
            ).content  # fmt: skip
            rows = found["tasks"] if isinstance(found, dict) else found
            yield from rows
            seen += len(rows)
            if len(rows) < size or (most and seen >= most):
                return
            last = int(rows[-1]["id"])

    # The backend

    @property
    def status(self) -> Timed:
        """What the backend says of its models: ``/readyz``, whatever its status."""
        return self.once("readyz", lambda: self.of_backend("readyz", statuses=(200, 503)))

    @property
    def own(self) -> Timed:
        """What the backend's process says of itself: ``/diagnosis``."""
        return self.once("own", lambda: self.of_backend("diagnosis"))

    def of_backend(
        self, path: str, models: Sequence[str] = (), statuses: Sequence[int] = (200,), **query: Any
    ) -> Timed:
        """What the backend answers to a GET.

        Raises:
            Unavailable: it is not reached or refuses.
        """
        url = f"{self.backend.address(models)}/{path}"
        return self._asked(
            lambda: self._client.get(url, params=query, auth=self._auth), "the backend", statuses
        )

    def setup(self, project: ProjectFacts) -> Timed:
        """What the backend answers to ``/setup`` of a project, as Label Studio asks it.

        Raises:
            Unavailable: it does not answer or refuses; its own message is passed on.
        """
        body = {
            "project": f"{project.id}.0",
            "schema": project.config,
            "extra_params": project.first.get("extra_params"),
        }
        return self.once(f"setup {project.id}", lambda: self.asked(project, "setup", body))

    def predicted(self, project: ProjectFacts) -> Timed:
        """What the backend answers to ``/predict`` of the first task of a project.

        Raises:
            Unavailable: as `setup`.
        """
        body = {"tasks": [self.first(project)], "project": f"{project.id}.0",
                "label_config": project.config}  # fmt: skip
        return self.once(f"predict {project.id}", lambda: self.asked(project, "predict", body))

    def asked(self, project: ProjectFacts, path: str, body: dict[str, Any]) -> Timed:
        """What the backend answers to a POST for a project.

        Raises:
            Unavailable: it does not answer or refuses; its own message is passed on.
        """
        url = f"{self.backend.address(project.models)}/{path}"
        return self._asked(
            lambda: self._client.post(url, json=body, auth=self._auth, timeout=LONG), "the backend"
        )

    def _asked(
        self, ask: Callable[[], httpx.Response], who: str, statuses: Sequence[int] = (200,)
    ) -> Timed:
        asked, began = time.time(), time.monotonic()
        try:
            answer = ask()
            took = time.monotonic() - began
            if answer.status_code not in (*statuses, 201, 204):
                # Told elsewhere: a password or token, another image, nobody behind a proxy.
                fault = Unavailable if answer.status_code in ELSEWHERE else Faulty
                raise fault(
                    f"{who} answered {answer.status_code} at {answer.url.path}: {_said(answer)}"
                )
            content = answer.json() if answer.content else None
        except Unavailable:
            raise
        except Exception as error:  # httpx's, and the SDK's where it exchanges a token
            raise Unavailable(f"{who}: {_why(error)}") from None
        return Timed(content, took, asked, time.time())

    @cached_property
    def in_container(self) -> bool:
        """Whether this process is in a container, where localhost is the container itself."""
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            return True
        marks = ("/.dockerenv", "/run/.containerenv")
        return any(Path(mark).exists() for mark in marks)


def _said(answer: httpx.Response) -> str:
    """An answer's own words for what is wrong."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text[:200].strip()
    content = content if isinstance(content, dict) else {}
    return str(content.get("error") or content.get("detail") or content)[:1000]


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, StudioError) else reason(error)
