"""Bulk work in a Label Studio without the kit's image, by its public API."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ls_yolo.labelstudio.client import Studio, StudioError
from ls_yolo.labelstudio.records import (
    LONG_SECONDS,
    Counts,
    Made,
    NoBulkCalls,
    Outcome,
    Page,
    Requests,
    Row,
    Shard,
    Task,
    Version,
    Where,
    failed,
)

log = logging.getLogger(__name__)

NUMBERS_META = "ls_kit_numbers"
"""The key of a task's ``meta`` under which the kit's image says which numbers are from here."""
PAGE = 100
"""Tasks of one request that brings their predictions along."""


class PlainStore:
    """The same as `bulk.Calls`, slower, and without ``cluster``.

    Label Studio has no unique key for predictions: what is stored is read back, and later copies
    are deleted. ``make_tasks`` raises NoBulkCalls.
    """

    def __init__(self, studio: Studio) -> None:
        self._requests = Requests(studio)

    def count(
        self,
        project: int,
        version: str,
        where: Where | None = None,
        shard: Shard | None = None,
        highest: int | None = None,
    ) -> Counts:
        """As `bulk.Calls.count`; reads all predictions of the project."""
        total = missing = lost = 0
        for row in self._rows(project, where, shard, highest):
            total += 1
            ours = _of(row, version)
            if not any(not failed(found) for found in ours):
                missing += 1
                lost += bool(ours)
        return Counts(total, missing, lost)

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
        """As `bulk.Calls.missing`; a page is at most `PAGE` tasks, those looked at."""
        rows = self._page(project, after, where, highest, min(limit, PAGE))
        tasks = [
            Task(int(row["id"]), dict(row["data"]))
            for row in rows
            if _in(row, shard) and not any(not failed(found) for found in _of(row, version))
        ]
        return Page(tasks, int(rows[-1]["id"]) if len(rows) == min(limit, PAGE) else 0)

    def store(self, project: int, rows: Sequence[Row]) -> Outcome:
        """As `bulk.Calls.store`: validated here, imported, read back, later copies deleted."""
        # Here, since it takes a quarter of the command's start, also with the kit's image.
        from label_studio_sdk.label_interface.interface import LabelInterface

        config = self._requests.get("GET", f"api/projects/{project}")["label_config"]
        interface: Any = LabelInterface(config)
        refused: dict[int, str] = {}
        for row in rows:
            errors = interface.validate_prediction(
                {"result": row.result, "score": row.score}, return_errors=True
            )
            if errors:
                refused[row.task] = "; ".join(map(str, errors))
        wanted = {(row.task, row.version): row for row in rows if row.task not in refused}
        tasks = sorted({task for task, _ in wanted})
        before = self._stored(project, tasks)
        gone = tuple(task for task in tasks if task not in before)
        new = [
            row
            for (task, version), row in wanted.items()
            if task in before and not _kept(before[task], version, row)
        ]
        present = len(wanted) - len(new) - sum(task not in before for task, _ in wanted)
        if new:
            body = [
                {
                    "task": row.task,
                    "result": row.result,
                    "score": row.score,
                    "model_version": row.version,
                }
                for row in new
            ]
            # Once only: an answer that was lost does not say that nothing was stored.
            path = f"api/projects/{project}/import/predictions"
            self._requests.get("POST", path, body, tries=1, seconds=LONG_SECONDS)
        after = self._stored(project, sorted({row.task for row in new}))
        stored = 0
        for row in new:
            found = after.get(row.task)
            if found is None:
                gone += (row.task,)
                continue
            if self._settle([one for one in found if one["model_version"] == row.version]):
                stored += 1
            else:
                refused[row.task] = "Label Studio answered that it is stored, and it is not"
        return Outcome(
            stored=stored,
            present=present,
            gone=gone,
            refused=tuple(refused.items()),
        )

    def _settle(self, found: list[dict[str, Any]]) -> bool:
        """Leaves the first good one of a task's predictions of a version; whether there is any."""
        found = sorted(found, key=lambda one: (failed(one), one["id"]))
        for copy in found[1:]:
            self._remove(copy["id"])
        return bool(found)

    def _remove(self, prediction: int) -> None:
        answer = self._requests.ask("DELETE", f"api/predictions/{prediction}/")
        # Another run may have been faster.
        if answer.is_error and answer.status_code != 404:
            raise StudioError(f"prediction {prediction} cannot be deleted: {answer.status_code}")

    def versions(self, project: int) -> list[Version]:
        """As `bulk.Calls.versions`, but that ``failed`` is 0 and ``first`` empty: not known."""
        path = f"api/projects/{project}/model-versions/"
        rows = self._requests.get("GET", path, params={"extended": "true"})["static"]
        rows = sorted(rows, key=lambda row: str(row["latest"]))
        return [
            Version(str(row["model_version"]), int(row["count"]), 0, "", str(row["latest"]))
            for row in rows
        ]

    def delete(self, project: int, version: str, limit: int = 5000) -> int:
        """As `bulk.Calls.delete`, one by one; the log says how fast.

        Label Studio's own call for all of a version takes minutes and gigabytes, and has the
        project show no predictions.
        """
        deleted, begun = 0, time.monotonic()
        where: Where | None = {
            "conjunction": "and",
            "items": [
                {
                    "filter": "filter:tasks:predictions_model_versions",
                    "operator": "contains",
                    "type": "List",
                    "value": [version],
                }
            ],
        }
        for row in self._rows(project, where if version else None, None):
            for found in _of(row, version):
                self._remove(found["id"])
                deleted += 1
            if deleted >= limit:
                break
        if deleted:
            log.warning(
                "project %s: deleted %s predictions of %s, %.0f a second, which is as fast as a "
                "Label Studio without the kit's image does it",
                project,
                deleted,
                version,
                deleted / max(time.monotonic() - begun, 0.001),
            )
        return deleted

    def settle(self, project: int, version: str, limit: int = 500) -> int:
        """As `bulk.Calls.settle`; reads all predictions of the project."""
        deleted = 0
        for row in self._rows(project, None, None):
            ours = _of(row, version)
            if len(ours) > 1 and limit:
                self._settle(ours)
                deleted += len(ours) - 1
                limit -= 1
        return deleted

    def numbers(self, project: int, values: Mapping[int, Mapping[str, int | float]]) -> int:
        """As `bulk.Calls.numbers`, task by task.

        Label Studio takes all of a task's data only: what is changed in between is lost.
        """
        changed = 0
        for task, wanted in values.items():
            answer = self._requests.ask(
                "GET", f"api/tasks/{task}/", params={"resolve_uri": "false"}
            )
            if answer.status_code == 404:
                continue
            if answer.is_error:
                raise StudioError(f"task {task}: Label Studio answered {answer.status_code}")
            found = answer.json()
            data, meta = dict(found["data"]), dict(found.get("meta") or {})
            ours = set(meta.get(NUMBERS_META) or ())
            new = {key: value for key, value in wanted.items() if key not in data or key in ours}
            if any(key not in data or data[key] != value for key, value in new.items()):
                meta[NUMBERS_META] = sorted(ours | set(new))
                body = {"data": {**data, **new}, "meta": meta}
                self._requests.get("PATCH", f"api/tasks/{task}/", body)
                changed += 1
        return changed

    def make_tasks(self, storage: int, kind: str = "localfiles", limit: int = 2000) -> Made:
        """Raises NoBulkCalls, always."""
        raise NoBulkCalls(
            f"storage {storage}: this Label Studio has no call that makes tasks with their links; "
            "sync the storage in its page, or run the kit's image"
        )

    def highest(self, project: int) -> int:
        """As `bulk.Calls.highest`."""
        rows = self._list(project, {"ordering": ["-tasks:id"]}, 1, "id")
        return int(rows[0]["id"]) if rows else 0

    def _rows(
        self,
        project: int,
        where: Where | None,
        shard: Shard | None,
        highest: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        after = 0
        while rows := self._page(project, after, where, highest, PAGE):
            yield from (row for row in rows if _in(row, shard))
            after = int(rows[-1]["id"])

    def _page(
        self, project: int, after: int, where: Where | None, highest: int | None, size: int
    ) -> list[dict[str, Any]]:
        """The next tasks by id, with their predictions."""
        items = list(where["items"]) if where else []
        if len(items) > 1 and where and where.get("conjunction") != "and":
            raise NoBulkCalls(
                "this Label Studio lacks the kit's calls, so that a filter must join its items by "
                f'"and"; found {where.get("conjunction")!r}'
            )
        items.append(_by_id("greater", after))
        if highest is not None:
            items.append(_by_id("less_or_equal", highest))
        query = {"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]}
        return self._list(project, query, size, "id,data,predictions")

    def _stored(self, project: int, tasks: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """The predictions of tasks, by task; one that is gone is left out."""
        found: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for start in range(0, len(tasks), PAGE):
            included = list(tasks[start : start + PAGE])
            query = {"selectedItems": {"all": False, "included": included}}
            for row in self._list(project, query, PAGE, "id,predictions"):
                found[int(row["id"])] += row.get("predictions") or []
        return found

    def _list(
        self, project: int, query: Mapping[str, Any], size: int, include: str
    ) -> list[dict[str, Any]]:
        params = {
            "project": project,
            "fields": "all",
            "include": include,
            "page": 1,
            "page_size": size,
            "resolve_uri": "false",  # as the backend gets it in /predict
            "query": json.dumps(query),
        }
        rows: list[dict[str, Any]] = self._requests.get("GET", "api/tasks/", params=params)["tasks"]
        return rows


def _by_id(operator: str, value: int) -> dict[str, Any]:
    return {"filter": "filter:tasks:id", "operator": operator, "type": "Number", "value": value}


def _of(row: Mapping[str, Any], version: str) -> list[dict[str, Any]]:
    return [one for one in row.get("predictions") or [] if (one["model_version"] or "") == version]


def _kept(found: Sequence[Mapping[str, Any]], version: str, row: Row) -> bool:
    """Whether what is stored of a version makes a row superfluous."""
    ours = [one for one in found if one["model_version"] == version]
    lost = not row.result and row.score is None
    return any(not failed(one) for one in ours) or (lost and bool(ours))


def _in(row: Mapping[str, Any], shard: Shard | None) -> bool:
    return shard is None or int(row["id"]) % shard[1] == shard[0]
