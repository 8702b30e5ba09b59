"""Files of tasks: JSON as Label Studio imports it, and CSV with a column for each field."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import ijson

from ls_yolo.labelstudio import bulk
from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects.backend import ApplyError, Say

BATCH = 1000
"""Tasks that are imported by one request: about 0.3 s."""
PAGE = 1000
"""Tasks that are read by one request."""
NO_VERSION = "no version is called so"


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a file, one after the other: ``{"data": {...}}``, with ``annotations`` and
    ``predictions`` where a JSON file has them.

    Raises:
        ApplyError: the file is missing or holds something else.
    """
    try:
        rows = _csv(path) if path.suffix.lower() == ".csv" else _json(path)
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or not isinstance(row.get("data", {}), dict) or not row:
                raise ApplyError(
                    f"{path}: task {number}: found {type(row).__name__}, expected a JSON object "
                    'such as {"image": "/data/local-files/?d=demo/bus.jpg"}'
                )
            yield row if "data" in row else {"data": row}
    except OSError as error:
        raise ApplyError(f"{path}: cannot be read: {error.strerror}") from None
    except (ijson.JSONError, UnicodeDecodeError, csv.Error) as error:
        expected = "a header and a row a task" if path.suffix.lower() == ".csv" else "a JSON list"
        raise ApplyError(f"{path}: {error}; expected {expected}, in UTF-8") from None


def _json(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        first = next((char for char in iter(lambda: file.read(1), b"") if not char.isspace()), b"")
        if first != b"[":
            raise ApplyError(f"{path}: found {first.decode(errors='replace')!r}, expected a list")
        file.seek(0)
        yield from ijson.items(file, "item", use_float=True)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row or None in row.values():
                raise csv.Error(f"a row with another number of columns than the header: {row}")
            yield row


class Known:
    """Which tasks there are, by what a file says of them; a digest each is kept.

    A task may have more in Label Studio than in its file: numbers that were counted. So of each
    task only the keys of the file count.
    """

    def __init__(self, shapes: set[frozenset[str]]) -> None:
        self._shapes = shapes
        self._count: Counter[bytes] = Counter()

    def add(self, data: Mapping[str, Any]) -> None:
        """A task that is there."""
        for shape in self._shapes:
            if shape <= data.keys():
                self._count[_digest(data, shape)] += 1

    def take(self, data: Mapping[str, Any]) -> bool:
        """Whether a task of a file is there; each of those there counts once."""
        digest = _digest(data, frozenset(data))
        if self._count[digest] <= 0:
            return False
        self._count[digest] -= 1
        return True


def _digest(data: Mapping[str, Any], keys: frozenset[str]) -> bytes:
    text = json.dumps({key: data[key] for key in keys}, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def missing(studio: Studio, project: int, path: Path) -> Iterator[dict[str, Any]]:
    """The tasks of a file that the project does not have."""
    shapes = {frozenset(task["data"]) for task in read(path)}
    known = Known(shapes)
    for data in _there(studio, project):
        known.add(data)
    return (task for task in read(path) if not known.take(task["data"]))


def load(studio: Studio, project: int, path: Path, say: Say) -> int:
    """Imports the tasks of a file that the project does not have; returns how many.

    Raises:
        ApplyError: the file cannot be used.
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is not reached.
    """
    api: Any = studio.client
    rows, made = missing(studio, project, path), 0
    while batch := list(islice(rows, BATCH)):
        # Tried once: tasks that are sent twice would be two.
        api.projects.import_tasks(project, request=batch, request_options={"max_retries": 0})
        made += len(batch)
        if len(batch) == BATCH:
            say(f"{path.name}: {made} new tasks")
    return made


def _there(studio: Studio, project: int) -> Iterator[Mapping[str, Any]]:
    """What is in each task of a project."""
    calls, last = bulk.store_of(studio), 0
    while True:
        page = calls.missing(project, NO_VERSION, after=last, limit=PAGE)
        for task in page.tasks:
            yield task.data
        last = page.last
        if not last:
            return
