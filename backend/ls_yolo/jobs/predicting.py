"""Who predicts for bulk work: the backend, over HTTP, or this process (`jobs.here`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from ls_yolo.errors import RequestError
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.bulk import Task

REQUEST_SECONDS = 100.0
"""How long the backend may take for a request: as long as Label Studio gives it."""
CONNECT_SECONDS = 5.0


class PredictingError(RequestError):
    """Nothing can be predicted; the message says what was found, and what to do."""


class Busy(PredictingError):
    """There is no room for a request just now; nothing was done."""


class Away(PredictingError):
    """Nobody is there to be asked, or it says that it is not ready: no task's fault."""


class Lost(PredictingError):
    """A request was begun and failed as a whole: one of its tasks may be the cause."""


@dataclass(frozen=True)
class Target:
    """What is predicted: a project's id, title and labeling config, and the models that are asked,
    none for the default. ``born``: when the project was made, which tells it from another of the
    same id."""

    id: int
    title: str
    config: str
    models: tuple[str, ...] = ()
    born: str = ""

    @property
    def path(self) -> str:
        """What names the models in the URL of the backend."""
        return selection.to_path(self.models)

    @property
    def key(self) -> str:
        """What tells this project, as it is configured, from others: what could not be predicted
        with another labeling config may be with this one."""
        config = hashlib.sha256(self.config.encode()).hexdigest()[:12]
        return f"{self.id}.{self.born}.{config}"


@dataclass(frozen=True)
class Answer:
    """What is said of a task. ``error``: why it could not be predicted, else empty. ``likeness``:
    the perceptual hash of its image, if there is one. ``score``: of the whole, if there is one."""

    result: list[Any]
    version: str
    error: str = ""
    likeness: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Described:
    """What will answer. ``unmapped``: control, label and the reason why no class stands for it;
    ``waiting``: why there is nothing to predict yet, else empty."""

    version: str
    waiting: str = ""
    unmapped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    warnings: Sequence[str] = ()


class Predicting(Protocol):
    """Predicts tasks of one project. Any thread may ask; how many at a time is up to them."""

    def describe(self) -> Described:
        """What will answer.

        Raises:
            Busy, Away: nothing can now.
            PredictingError: nothing can.
        """

    def predict(self, tasks: Sequence[Task]) -> list[Answer]:
        """An answer a task, in order.

        Raises:
            Busy, Away, Lost: see there.
            PredictingError: nothing can be predicted, now or later.
        """


class Noted:
    """Predicts in this process, which a task may end: ``begin`` is told of tasks before, ``end``
    once this process has survived them."""

    def __init__(
        self,
        predicting: Predicting,
        begin: Callable[[Sequence[int]], None],
        end: Callable[[Sequence[int]], None],
    ) -> None:
        self._predicting = predicting
        self._begin = begin
        self._end = end

    def describe(self) -> Described:
        """See `Predicting.describe`."""
        return self._predicting.describe()

    def predict(self, tasks: Sequence[Task]) -> list[Answer]:
        """See `Predicting.predict`."""
        ids = [task.id for task in tasks]
        self._begin(ids)
        try:
            return self._predicting.predict(tasks)
        finally:
            self._end(ids)


class OverHttp:
    """Has tasks predicted by the backend.

    Args:
        url: of the backend, without models.
        user, password: its basic auth; an empty password: none.
        target: what is predicted.
        likeness: whether hashes of images are asked for.
    """

    def __init__(
        self, url: str, user: str, password: str, target: Target, likeness: bool = False
    ) -> None:
        self._url = url.rstrip("/") + target.path
        self._target = target
        self._params = {"likeness": True} if likeness else {}
        self._http = httpx.Client(
            auth=(user, password) if password else None,
            timeout=httpx.Timeout(REQUEST_SECONDS, connect=CONNECT_SECONDS),
        )

    def describe(self) -> Described:
        """See `Predicting.describe`."""
        body = {"project": f"{self._target.id}.0", "schema": self._target.config}
        try:
            found = self._post("setup", body)
        except Lost as error:  # no task is to blame
            raise Away(str(error)) from None
        return Described(
            str(found.get("model_version") or ""),
            str(found.get("waiting") or ""),
            found.get("unmapped") or {},
            found.get("warnings") or (),
        )

    def predict(self, tasks: Sequence[Task]) -> list[Answer]:
        """See `Predicting.predict`."""
        project = self._target.id
        body = {
            "tasks": [{"id": task.id, "data": task.data, "project": project} for task in tasks],
            "project": f"{project}.0",
            "label_config": self._target.config,
            "params": self._params,
        }
        rows = self._post("predict", body).get("results")
        if not isinstance(rows, list) or len(rows) != len(tasks):
            found = len(rows) if isinstance(rows, list) else "none"
            raise Lost(f"{self._url}: found {found} answers, expected {len(tasks)}, one a task")
        return [_answer(row) for row in rows]

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{self._url}/{path}"
        try:
            answer = self._http.post(url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Away(f"{url}: {_named(error)}; is the backend running?") from None
        except httpx.TimeoutException:
            raise Lost(f"it took the backend more than {REQUEST_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            raise Lost(f"the backend went away while it predicted: {_named(error)}") from None
        try:
            content = answer.json()
        except ValueError:
            content = None
        status = answer.status_code
        if status == 200 and isinstance(content, dict):
            return content
        said = content.get("error") if isinstance(content, dict) else None
        text = f"the backend answered {status}: {said or answer.text[:200]}"
        if status == 429:
            raise Busy(text)
        if status == 503:  # it says itself that it is not ready, or a model cannot be loaded now
            raise Away(text)
        # 502 and 504 too: so a proxy says that the backend ended, or hung, over a request.
        if status >= 500 or status in (408, 413):
            raise Lost(text)
        raise PredictingError(f"{url}: {text}")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _answer(row: Any) -> Answer:
    """A row of the backend's answer. A user's own model may say several predictions of a task, of
    which Label Studio shows the first."""
    if isinstance(row, list):
        row = row[0] if row else {}
    return answer_of(row)


def answer_of(row: Mapping[str, Any]) -> Answer:
    """A prediction as the backend makes it: without a score it has failed."""
    result = row.get("result") or []
    failed = not result and row.get("score") is None
    why = str(row.get("error") or "the model said nothing of it") if failed else ""
    hashed = row.get("likeness")
    likeness = int(hashed, 16) if isinstance(hashed, str) else None
    version = str(row.get("model_version") or "")
    return Answer(result, version, why, likeness, row.get("score"))
