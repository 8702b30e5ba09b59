"""Predictions and tasks in bulk, in a Label Studio of the kit (`Calls`) or another (`PlainStore`).

Label Studio's public API has no call that stores a prediction unless it is there, none that writes
``cluster`` or numbers of ``task.data`` for many tasks, and none that makes tasks of a storage
without running for minutes. The kit's image has them, under ``/api/ls-kit/``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from ls_yolo.labelstudio.client import Studio, StudioError
from ls_yolo.labelstudio.plain_store import PlainStore
from ls_yolo.labelstudio.records import (
    LONG_SECONDS,
    MOST_ROWS,
    Counts,
    Made,
    NoBulkCalls,
    Outcome,
    Page,
    Requests,
    Row,
    Shard,
    StudioDown,
    Task,
    Version,
    Where,
    detail,
)
from ls_yolo.text import some

__all__ = (
    "MOST_ROWS",
    "Calls",
    "Counts",
    "Made",
    "NoBulkCalls",
    "Outcome",
    "Page",
    "PlainStore",
    "Row",
    "Shard",
    "StudioDown",
    "Task",
    "Version",
    "Where",
    "store_of",
)

log = logging.getLogger(__name__)

CALLS = "api/ls-kit/"
"""Where the calls are, below Label Studio's address."""
MOST_BYTES = 16 * 2**20
"""Bytes of predictions, as JSON, that go with one request; a larger one goes alone. Label Studio
itself takes 250 MiB, a proxy before it often less."""
TOO_MUCH = (400, 413, 422)
"""Answers to rows, one of which at least cannot be taken."""
MOST_NUMBERS = 1000
"""Tasks whose numbers are written by one request."""
SYNC_SECONDS = 60
"""How long a sync of Label Studio's own is waited for; one that was killed counts as ended after
25 s of silence."""
SYNC_PAUSE = 3
"""How long to wait until it is looked again, in seconds."""


class Calls:
    """The calls of the kit's image. Each is safe to repeat, and repeated where Label Studio fails.

    Every method raises StudioDown where Label Studio does not answer all the same, and StudioError
    where it refuses.
    """

    def __init__(self, studio: Studio) -> None:
        self._requests = Requests(studio)

    def _call(self, project: int, name: str, body: Any = None, **more: Any) -> Any:
        method = "GET" if body is None else "POST"
        return self._requests.get(method, _path(project, name), body, **more)

    def count(
        self,
        project: int,
        version: str,
        where: Where | None = None,
        shard: Shard | None = None,
        highest: int | None = None,
    ) -> Counts:
        """How many tasks there are, of ``where`` and ``shard`` (index from 0, total) only, with ids
        up to ``highest``."""
        body = _scope(version, where, shard, highest)
        return Counts(**self._call(project, "count", body, seconds=LONG_SECONDS))

    def missing(
        self,
        project: int,
        version: str,
        *,
        after: int = 0,
        limit: int = 500,
        where: Where | None = None,
        shard: Shard | None = None,
        highest: int | None = None,
    ) -> Page:
        """Tasks without a good prediction, with ids above ``after`` and up to ``highest``.

        A page may hold fewer than ``limit``, even none, before the last one.
        """
        body = {**_scope(version, where, shard, highest), "after": after, "limit": limit}
        page = self._call(project, "missing", body)
        return Page([Task(row["id"], row["data"]) for row in page["tasks"]], page["last"])

    def store(self, project: int, rows: Sequence[Row]) -> Outcome:
        """Stores predictions of tasks that have no good one of the version yet.

        Args:
            project: its id.
            rows: at most `MOST_ROWS`. A good one replaces failed ones of the same version.

        Where Label Studio takes some only, the others are among those refused.
        """
        sent, refused, outcome = list[Row](), [], Outcome()
        size = 0
        for row in rows:
            try:
                # As it is sent.
                text = json.dumps(vars(row), ensure_ascii=False, allow_nan=False)
                length = len(text.encode())
            except ValueError as error:
                refused.append((row.task, f"it is no JSON: {error}"))
                continue
            if sent and size + length > MOST_BYTES:
                outcome = _sum(outcome, self._store(project, sent))
                sent, size = [], 0
            sent.append(row)
            size += length
        if sent:
            outcome = _sum(outcome, self._store(project, sent))
        return _sum(outcome, Outcome(refused=tuple(refused)))

    def _store(self, project: int, rows: Sequence[Row]) -> Outcome:
        """Stores what fits one request; where it is refused as a whole, finds the row to blame."""
        path, body = _path(project, "store"), {"rows": [vars(row) for row in rows]}
        answer = self._requests.ask("POST", path, body)
        if answer.status_code in TOO_MUCH:
            if len(rows) == 1:
                return Outcome(refused=((rows[0].task, detail(answer)),))
            half = len(rows) // 2
            return _sum(self._store(project, rows[:half]), self._store(project, rows[half:]))
        found = self._requests.content(answer, path)
        return Outcome(
            stored=found["stored"],
            present=found["present"],
            gone=tuple(found["gone"]),
            refused=tuple((task, why) for task, why in found["refused"]),
        )

    def versions(self, project: int) -> list[Version]:
        """The versions that have predictions, the one stored last at the end."""
        found = self._call(project, "versions", seconds=LONG_SECONDS)["versions"]
        return [Version(**row) for row in found]

    def delete(self, project: int, version: str, limit: int = 5000) -> int:
        """Deletes up to ``limit`` predictions of a version, ``""``: of those without any; how many:
        0 once none is left."""
        deleted = self._call(project, "delete", {"version": version, "limit": limit})["deleted"]
        return int(deleted)

    def settle(self, project: int, version: str, limit: int = 500) -> int:
        """Deletes what tasks have of a version besides their first good prediction, of up to
        ``limit`` tasks: Label Studio itself stores without a look. How many: 0 once none is left.
        """
        body = {"version": version, "limit": limit}
        return int(self._call(project, "settle", body, seconds=LONG_SECONDS)["deleted"])

    def numbers(self, project: int, values: Mapping[int, Mapping[str, int | float]]) -> int:
        """Writes numbers into the ``data`` of tasks, by task id; how many tasks were changed.

        What anybody else put under such a key stays as it is, and the log names the key.
        """
        changed, kept = 0, set[str]()
        rows = iter(values.items())
        while batch := {str(task): dict(row) for task, row in islice(rows, MOST_NUMBERS)}:
            answer = self._call(project, "numbers", {"values": batch})
            changed += answer["changed"]
            kept |= set(answer["kept"])
        if kept:
            log.warning(
                "project %s: tasks have data of their own under %s, which stays; "
                "choose other names for the numbers",
                project,
                some(sorted(kept)),
            )
        return changed

    def make_tasks(self, storage: int, kind: str = "localfiles", limit: int = 2000) -> Made:
        """Makes tasks of files that have none, with their links; repeated until none is left.

        A sync of Label Studio's own is waited for: both at once would make tasks twice.

        Args:
            storage: its id.
            kind: localfiles, s3, gcs or azure.
            limit: how many files at most by this request.
        """
        path = f"{CALLS}storages/{kind}/{storage}/make-tasks/"
        until = time.monotonic() + SYNC_SECONDS
        told = False
        while True:
            answer = self._requests.ask("POST", path, {"limit": limit}, seconds=LONG_SECONDS)
            if answer.status_code != 409 or time.monotonic() > until:
                break
            if not told:
                log.warning("%s; waiting for it", detail(answer))
                told = True
            time.sleep(SYNC_PAUSE)
        if answer.is_error:
            raise StudioError(detail(answer))
        return Made(**answer.json())

    def highest(self, project: int) -> int:
        """The highest id of a task; 0 where there is none."""
        return int(self._call(project, "highest")["highest"])


def store_of(studio: Studio) -> Calls | PlainStore:
    """What stores predictions in this Label Studio. Asks it once.

    Raises:
        StudioDown: Label Studio does not answer.
        StudioError: it does not take the token, or answers with an error that says nothing of it.
    """
    requests = Requests(studio)
    answer = requests.ask("GET", CALLS)
    if answer.status_code == 404 or answer.is_redirect:
        return PlainStore(studio)
    if answer.is_error:
        requests.content(answer, CALLS)
    try:
        known = "store" in answer.json()["calls"]
    except (ValueError, KeyError, TypeError):
        known = False
    return Calls(studio) if known else PlainStore(studio)


def _path(project: int, name: str) -> str:
    return f"{CALLS}projects/{project}/{name}/"


def _sum(one: Outcome, other: Outcome) -> Outcome:
    return Outcome(
        one.stored + other.stored,
        one.present + other.present,
        one.gone + other.gone,
        one.refused + other.refused,
    )


def _scope(
    version: str, where: Where | None, shard: Shard | None, highest: int | None
) -> dict[str, Any]:
    return {
        "version": version,
        "where": dict(where) if where else None,
        "shard": list(shard) if shard else None,
        "highest": highest,
    }
