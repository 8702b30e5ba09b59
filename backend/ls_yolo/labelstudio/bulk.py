"""Predictions and tasks in bulk, in a Label Studio of the kit (`Calls`) or another (`PlainStore`).

Label Studio's public API has no call that stores a prediction unless it is there, none that writes
``cluster`` or numbers of ``task.data`` for many tasks, and none that makes tasks of a storage
without running for minutes. The kit's image has them, under ``/api/ls-kit/``.

A *good* prediction of a version bears exactly that version and is not a failure; a *failed* one has
an empty result and no score, which is how the backend answers a task that it cannot predict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ls_yolo.labelstudio.client import Studio, StudioError

MOST_ROWS = 500
"""Predictions that are stored by one request."""

Where = Mapping[str, Any]
"""A filter of the Data Manager: ``{"conjunction": "and", "items": [{"filter": "filter:tasks:id",
"operator": "greater", "type": "Number", "value": 7}]}``."""


class NoBulkCalls(StudioError):
    """This Label Studio is not of the kit's image: it lacks the calls that are needed."""


@dataclass(frozen=True)
class Task:
    """A task: ``data`` as the backend gets it in ``/predict``, URLs and all."""

    id: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Page:
    """Tasks of one range of ids, in order. The next page begins after ``last``; 0: no more."""

    tasks: list[Task]
    last: int


@dataclass(frozen=True)
class Counts:
    """Tasks: all; those without a good prediction; those of them whose newest one failed."""

    total: int
    missing: int
    failed: int


@dataclass(frozen=True)
class Row:
    """A prediction to store. ``result``: regions as Label Studio stores them; ``score``: 0 to 1."""

    task: int
    result: list[Any]
    score: float | None
    version: str
    cluster: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of rows.

    ``stored`` now; ``present``: stored before, by another run; ``gone``: tasks that were deleted
    meanwhile; ``refused``: tasks whose rows Label Studio's own validation refuses, and why.
    """

    stored: int = 0
    present: int = 0
    gone: tuple[int, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Version:
    """A version with predictions: how many, how many failed, ISO times of first and last."""

    name: str
    count: int
    failed: int
    first: str
    last: str


@dataclass(frozen=True)
class Made:
    """Tasks made of a storage's files by one request, and files that are left for the next."""

    made: int
    left: int


class Calls:
    """The calls of the kit's image. Each is safe to repeat.

    Every method raises StudioError where Label Studio is not reached, also after some tries, or
    refuses.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def count(
        self,
        project: int,
        version: str,
        where: Where | None = None,
        shard: tuple[int, int] | None = None,
    ) -> Counts:
        """How many tasks there are, of ``where`` and ``shard`` (index from 0, total) only."""
        raise NotImplementedError

    def missing(
        self,
        project: int,
        version: str,
        *,
        after: int = 0,
        limit: int = 500,
        where: Where | None = None,
        shard: tuple[int, int] | None = None,
        highest: int | None = None,
    ) -> Page:
        """Tasks without a good prediction, with ids above ``after`` and up to ``highest``.

        A page may hold fewer than ``limit``, even none, before the last one.
        """
        raise NotImplementedError

    def store(self, project: int, rows: Sequence[Row]) -> Outcome:
        """Stores predictions of tasks that have no good one of the version yet.

        Args:
            project: its id.
            rows: at most `MOST_ROWS`. A good one replaces failed ones of the same version.
        """
        raise NotImplementedError

    def versions(self, project: int) -> list[Version]:
        """The versions that have predictions, the one predicted with last at the end."""
        raise NotImplementedError

    def delete(self, project: int, version: str, limit: int = 5000) -> int:
        """Deletes up to ``limit`` predictions of a version; how many: 0 once none is left."""
        raise NotImplementedError

    def numbers(self, project: int, values: Mapping[int, Mapping[str, int | float]]) -> int:
        """Writes numbers into the ``data`` of tasks, by task id; how many tasks were changed.

        A key that holds anything but a number stays as it is.
        """
        raise NotImplementedError

    def make_tasks(self, storage: int, kind: str = "localfiles", limit: int = 2000) -> Made:
        """Makes tasks of files that have none, with their links; repeated until none is left.

        Args:
            storage: its id.
            kind: localfiles, s3, gcs or azure.
            limit: how many files at most by this request.
        """
        raise NotImplementedError

    def highest(self, project: int) -> int:
        """The highest id of a task; 0 where there is none."""
        raise NotImplementedError


class PlainStore(Calls):
    """The same against a Label Studio without the kit's image, by its public API.

    Slower, and without ``cluster``: stored predictions are read back, and later copies deleted.
    ``make_tasks`` raises NoBulkCalls.
    """


def store_of(studio: Studio) -> Calls | PlainStore:
    """What stores predictions in this Label Studio. Asks it once.

    Raises:
        StudioError: Label Studio is not reached or refuses.
    """
    raise NotImplementedError
