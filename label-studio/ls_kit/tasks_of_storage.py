"""Tasks of a storage's files, with the links that keep a later sync from making them again.

Upstream makes one task at a time inside one request, which takes minutes for 20,000 files; here a
request makes some thousands and returns, and the next goes on. What a task, its link and the
storage's state hold is what upstream's own sync makes them (``ImportStorage.add_task`` and
``_scan_and_create_links``).
"""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from fsm.functions import backfill_fsm_states_for_tasks
from io_storages.azure_blob.models import AzureBlobImportStorage
from io_storages.gcs.models import GCSImportStorage
from io_storages.localfiles.models import LocalFilesImportStorage
from io_storages.s3.models import S3ImportStorage
from tasks.models import Task
from webhooks.models import WebhookAction
from webhooks.utils import emit_webhooks_for_instance

from ls_kit.bulk import locked

log = logging.getLogger(__name__)

KINDS = {
    "localfiles": LocalFilesImportStorage,
    "s3": S3ImportStorage,
    "gcs": GCSImportStorage,
    "azure": AzureBlobImportStorage,
}
BATCH = 1000
"""Names that are read before it is looked whether time is up; rows of one insertion."""
BATCH_READ = 50
"""Such names where each file is read too, which may take long."""
SECONDS = 5.0
"""A request looks no longer for files that have no task, and gives out what it has."""
KEPT_SECONDS = 30
"""How long a scan that nobody goes on with is kept; a new one sees files that came meanwhile."""
OURS = "ls-kit"
"""What ``storage.meta`` says where it is us who are at it."""
JSON_SUFFIXES = ("", ".json", ".jsonl", ".parquet")


class Syncing(RuntimeError):
    """Label Studio's own sync of the storage runs, or was killed less than half a minute ago."""


class StorageError(RuntimeError):
    """A storage cannot be read; the message says why."""


@dataclass
class Scan:
    """A storage that is being read: its files, in order, and what was made of them so far."""

    keys: Iterator[str]
    total: int | None
    """How many files there are, where that is known."""
    linked: set[str] = field(default_factory=set)
    """Those that had a task when the scan began, or wait for one. Links have no index by name, so
    to ask for some costs as much as to read all."""
    seen: int = 0
    made: int = 0
    used: float = field(default_factory=time.monotonic)
    waiting: list[tuple[str, list[Any]]] = field(default_factory=list)
    """Files that have no task yet, and what is in each, as upstream's StorageObject."""


_scans: dict[tuple[Any, ...], Scan] = {}
"""Scans to go on with. Who goes on with one takes it out, so that two never share one; what two
find at the same time is told apart by its links, under the lock."""


def make(storage: Any, limit: int) -> dict[str, int]:
    """Makes tasks of up to ``limit`` files that have none.

    Returns how many were ``made``, and how many files are ``left`` to look at: 0 at the end; 1
    where there are more and the storage cannot tell how many.

    Raises:
        Syncing: see there.
        StorageError: the storage cannot be read, or a file of it cannot become tasks.
    """
    where = _identity(storage)
    # Before anything is looked at, so that upstream's own sync does not begin meanwhile.
    with _held(storage):
        scan = _scans.pop(where, None) or Scan(iter(()), None)
        _write(storage, storage.Status.IN_PROGRESS, scan)
    try:
        if not scan.seen:
            _begin(storage, scan)
        _look(storage, scan, limit)
    except StorageError as error:
        _end(storage, storage.Status.FAILED, scan, str(error))
        raise
    made = _make(storage, scan, limit)
    ended = not scan.waiting and scan.total is not None and scan.seen >= scan.total
    if ended:
        if scan.made:
            storage.project.update_tasks_states(
                maximum_annotations_changed=False,
                overlap_cohort_percentage_changed=False,
                tasks_number_changed=True,
            )
        _end(storage, storage.Status.COMPLETED, scan)
        return {"made": made, "left": 0}
    with _held(storage):
        _write(storage, storage.Status.IN_PROGRESS, scan)
    scan.used = time.monotonic()
    _scans[where] = scan
    left = 1 if scan.total is None else scan.total - scan.seen + len(scan.waiting)
    return {"made": made, "left": max(left, 1)}


def _identity(storage: Any) -> tuple[Any, ...]:
    """The storage, and what says which files of it are meant."""
    for old in [key for key, scan in list(_scans.items()) if _stale(scan)]:
        _scans.pop(old, None)
    names = ("path", "bucket", "container", "prefix", "regex_filter", "recursive_scan")
    fields = (str(getattr(storage, name, "")) for name in (*names, "use_blob_urls"))
    return (type(storage).__name__, storage.pk, *fields)


def _stale(scan: Scan) -> bool:
    return time.monotonic() - scan.used > KEPT_SECONDS


@contextlib.contextmanager
def _held(storage: Any) -> Iterator[None]:
    """A transaction in which nobody else begins with the storage, whose state is read anew.

    Raises:
        Syncing: upstream's own sync is at it by now.
        StorageError: it was deleted.
    """
    with transaction.atomic():
        now = type(storage).objects.select_for_update().filter(pk=storage.pk).first()
        if now is None:
            raise StorageError(f"storage {storage.pk} was deleted meanwhile")
        storage.status, storage.meta = now.status, now.meta or {}
        _check_idle(storage)
        yield


def _silent(storage: Any) -> float | None:
    """Seconds since the last sign of life of what is at a storage; None: it gave none."""
    meta = storage.meta or {}
    since = meta.get("time_last_ping") or meta.get("time_queued")
    return (timezone.now() - datetime.fromisoformat(since)).total_seconds() if since else None


def _most_silent() -> float:
    """After how many seconds of silence a sync counts as killed, for upstream too."""
    return float(settings.STORAGE_IN_PROGRESS_TIMER * 5)


def patch() -> None:
    """Has upstream begin no sync of a storage that we are at.

    It looks at the storage's status itself, but on SQLite.
    """
    from io_storages.base_models import StorageInfo

    upstream = StorageInfo.info_set_queued

    def info_set_queued(self: Any) -> Any:
        with transaction.atomic():
            now = type(self).objects.select_for_update().filter(pk=self.pk).first()
            if now is not None and (now.meta or {}).get("by") == OURS:
                silent = _silent(now)
                if (
                    now.status == now.Status.IN_PROGRESS
                    and silent is not None
                    and silent <= _most_silent()
                ):
                    log.warning("storage %s: no sync, since its tasks are being made", self.pk)
                    return False
            return upstream(self)

    StorageInfo.info_set_queued = info_set_queued


def _check_idle(storage: Any) -> None:
    """Raises `Syncing` where upstream's own sync may be at it: both would make the same tasks."""
    storage.health_check()  # one that was killed counts as failed once it is silent for long enough
    if storage.status not in (storage.Status.QUEUED, storage.Status.IN_PROGRESS):
        return
    if (storage.meta or {}).get("by") == OURS:
        return
    silent, most = _silent(storage), _most_silent()
    if silent is not None and silent > most:
        return
    raise Syncing(
        f"storage {storage.pk}: Label Studio is syncing it ({storage.status}, last sign of life "
        f"{silent or 0:.0f} s ago); a sync that was killed counts as ended after {most:.0f} s"
    )


def _begin(storage: Any, scan: Scan) -> None:
    """Opens the storage."""
    try:
        storage.validate_connection()
        scan.keys = iter(storage.iter_keys())
        links = storage.links.order_by().values_list("key", flat=True)
        scan.linked = set(links.iterator(chunk_size=BATCH))
        if isinstance(storage, LocalFilesImportStorage):
            # Upstream sorts them, so all are read by now in any case.
            keys = list(scan.keys)
            scan.keys, scan.total = iter(keys), len(keys)
    except Exception as error:
        raise StorageError(f"storage {storage.pk} cannot be read: {error}") from error


def _look(storage: Any, scan: Scan, limit: int) -> None:
    """Reads names until ``limit`` files without a task wait, all are read, or time is up."""
    size = BATCH if storage.use_blob_urls else BATCH_READ
    until = time.monotonic() + SECONDS
    while sum(len(found) for _, found in scan.waiting) < limit and time.monotonic() < until:
        try:
            batch = list(itertools.islice(scan.keys, size))
        except Exception as error:
            raise StorageError(f"storage {storage.pk} cannot be read: {error}") from error
        scan.seen += len(batch)
        for key in batch:
            if key not in scan.linked:
                scan.linked.add(key)  # a storage may name one twice
                scan.waiting.append((key, _objects(storage, key)))
        if len(batch) < size:
            scan.total = scan.seen
            return


def _objects(storage: Any, key: str) -> list[Any]:
    """What a file holds: one task where it is an image, those in it where it is JSON."""
    if not storage.use_blob_urls and os.path.splitext(key.lower())[1] not in JSON_SUFFIXES:  # noqa: PTH122
        raise StorageError(
            f"{key} is no JSON, JSONL or Parquet file, and the storage's files are to hold tasks; "
            "leave others out by its regex, or set use_blob_urls to make a task of each file"
        )
    try:
        found = list(storage.get_data(key))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(
            f"{key} cannot be read as JSON ({error}); set use_blob_urls to make a task of each file"
        ) from error
    except Exception as error:
        raise StorageError(f"{key} cannot be read: {error}") from error
    return found


def _make(storage: Any, scan: Scan, limit: int) -> int:
    """Makes tasks of what waits, with their links, all in one transaction."""
    files: list[tuple[str, list[Any]]] = []
    size = 0
    # Never a part of a file: its links would say that all of it is there.
    while scan.waiting and size < limit:
        files.append(scan.waiting.pop(0))
        size += len(files[-1][1])
    if not files:
        return 0
    project, links = storage.project, storage.links.model
    with locked(project), _held(storage):
        # Again, under the lock: another scan may have made some meanwhile.
        known = links.exists([key for key, _ in files], storage)
        wanted = [found for key, objects in files if key not in known for found in objects]
        top = Task.objects.filter(project=project).aggregate(top=Max("inner_id"))["top"]
        plain, ids = [], []
        for number, found in enumerate(wanted, (top or 0) + 1):
            data = found.task_data
            if data.get("predictions") or data.get("annotations"):
                task = storage.add_task(
                    project, project.maximum_annotations, number, storage, found, links
                )
                ids.append(task.pk)
            else:
                plain.append((found, _task(project, data, number)))
        Task.objects.bulk_create([task for _, task in plain], batch_size=BATCH)
        links.objects.bulk_create(
            [
                links(
                    task=task,
                    key=found.key,
                    row_index=found.row_index,
                    row_group=found.row_group,
                    storage=storage,
                    object_exists=True,
                )
                for found, task in plain
            ],
            batch_size=BATCH,
        )
        if plain:
            project.summary.refresh_from_db()
            project.summary.update_data_columns([task for _, task in plain])
        ids += [task.pk for _, task in plain]
    scan.made += len(ids)
    if ids:
        emit_webhooks_for_instance(project.organization, project, WebhookAction.TASKS_CREATED, ids)
        backfill_fsm_states_for_tasks(storage.pk, len(ids), links)
    return len(ids)


def _task(project: Any, data: dict[str, Any], number: int) -> Any:
    allow_skip = data.get("allow_skip", True)
    if isinstance(data.get("data"), dict):
        data = data["data"]
    return Task(
        data=data,
        project=project,
        overlap=project.maximum_annotations,
        inner_id=number,
        allow_skip=allow_skip,
    )


def _write(storage: Any, status: str, scan: Scan, **meta: Any) -> None:
    """Has the storage say how far it is, as a sync does."""
    now = str(timezone.now())
    before = storage.meta or {}
    if before.get("by") != OURS:
        before = {"attempts": before.get("attempts", 0) + 1, "by": OURS}
        before |= {"time_queued": now, "time_in_progress": now}
    existed = max(scan.seen - scan.made, 0)
    storage.meta = {**before, "time_last_ping": now, "tasks_existed": existed, **meta}
    storage.status = status
    storage.last_sync_count = scan.made
    storage.save(update_fields=["meta", "status", "last_sync_count", "last_sync", "traceback"])


def _end(storage: Any, status: str, scan: Scan, traceback: str = "") -> None:
    now = timezone.now()
    with _held(storage):
        storage.traceback = traceback
        if traceback:
            _write(storage, status, scan, time_failure=str(now))
        else:
            storage.last_sync = now
            _write(storage, status, scan, time_completed=str(now))
        # Whoever comes next, a sync from the page perhaps, begins anew.
        storage.meta = {key: value for key, value in storage.meta.items() if key != "by"}
        storage.save(update_fields=["meta"])
