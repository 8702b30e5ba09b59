"""Tasks that could not be predicted, and why, kept from run to run.

What is stored in Label Studio needs no copy here: which tasks lack a prediction, it says itself.
What failed is stored nowhere, or each run would begin with the same broken images.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_TRIES = 3
"""Runs that a task may fail in before it is left out."""
_FILE = "quarantine.sqlite"
_AT_ONCE = 500
"""Ids in one query: SQLite bounds its parameters."""
_TABLE = """
CREATE TABLE IF NOT EXISTS failures (
    studio TEXT, project TEXT, version TEXT, task INTEGER,
    reason TEXT NOT NULL, tries INTEGER NOT NULL, last REAL NOT NULL, run TEXT NOT NULL,
    lost INTEGER NOT NULL,
    PRIMARY KEY (studio, project, version, task)
) WITHOUT ROWID
"""
_MINE = "studio = ? AND project = ? AND version = ?"


@dataclass(frozen=True)
class Failure:
    """A task that failed in ``tries`` runs; ``last``: when, in seconds since 1970."""

    task: int
    reason: str
    tries: int
    last: float


class Quarantine:
    """The failures of one project with one version. Safe to share between threads, and between
    processes: shards on one machine share the file.

    Args:
        folder: where the file is; made if it is not there.
        studio: the address of Label Studio.
        project: what tells the project from one of the same id in a Label Studio begun anew.
        version: the models' version.
        run: what tells this run from others; in one run a task fails once, however often.
        shard: index from 0 and total; of other shards nothing is seen.
    """

    def __init__(
        self,
        folder: Path,
        studio: str,
        project: str,
        version: str,
        run: str,
        shard: tuple[int, int] | None = None,
    ) -> None:
        self._key = (studio, project, version)
        self._run = run
        self._shard = shard or (0, 1)
        self._lock = threading.Lock()
        self._base = sqlite3.connect(
            _opened(folder), timeout=60, isolation_level=None, check_same_thread=False
        )
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute(_TABLE)

    def close(self) -> None:
        with self._lock:
            self._base.close()

    def fail(self, task: int, reason: str, lost: bool = False) -> None:
        """Keeps that a task failed in this run, and why; ``lost``: with its whole request, whose
        end may have been the backend's."""
        self._do(
            "INSERT INTO failures VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "tries = tries + (run <> excluded.run), reason = excluded.reason, "
            "last = excluded.last, run = excluded.run, lost = excluded.lost",
            (*self._key, task, reason, time.time(), self._run, lost),
        )

    def forget(self, tasks: Iterable[int]) -> None:
        """Forgets tasks that were predicted after all."""
        for some in _parts(tasks):
            marks = ",".join("?" * len(some))
            self._do(
                f"DELETE FROM failures WHERE {_MINE} AND task IN ({marks})", (*self._key, *some)
            )

    def clear(self, lost: bool = True) -> int:
        """Forgets all of this shard, or all but those that were ``lost``; returns how many."""
        index, total = self._shard
        return self._do(
            f"DELETE FROM failures WHERE {_MINE} AND task % ? = ? AND lost <= ?",
            (*self._key, total, index, lost),
        )

    def left_out(self, tasks: Sequence[int]) -> set[int]:
        """Those of ``tasks`` that failed too often to be tried again by this run."""
        found: set[int] = set()
        for some in _parts(tasks):
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT task FROM failures WHERE {_MINE} AND tries >= ? AND run <> ? "
                f"AND task IN ({marks})"
            )
            rows = self._rows(query, (*self._key, MAX_TRIES, self._run, *some))
            found |= {int(row[0]) for row in rows}
        return found

    def failures(self, most: int | None = None) -> list[Failure]:
        """What has failed, by task; ``most`` of them."""
        index, total = self._shard
        query = (
            f"SELECT task, reason, tries, last FROM failures WHERE {_MINE} AND task % ? = ? "
            "ORDER BY task LIMIT ?"
        )
        limit = -1 if most is None else most
        return [Failure(*row) for row in self._rows(query, (*self._key, total, index, limit))]

    def of(self, tasks: Iterable[int]) -> Iterator[Failure]:
        """The failures of ``tasks``, read in parts."""
        for some in _parts(tasks):
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT task, reason, tries, last FROM failures WHERE {_MINE} "
                f"AND task IN ({marks}) ORDER BY task"
            )
            yield from (Failure(*row) for row in self._rows(query, (*self._key, *some)))

    def count(self) -> int:
        """How many failures there are."""
        index, total = self._shard
        query = f"SELECT count(*) FROM failures WHERE {_MINE} AND task % ? = ?"
        return int(self._rows(query, (*self._key, total, index))[0][0])

    def kept(self, lost: bool = False) -> int:
        """How many tasks this run does not try; of those that were ``lost`` alone."""
        index, total = self._shard
        query = (
            f"SELECT count(*) FROM failures WHERE {_MINE} AND tries >= ? AND run <> ? "
            "AND task % ? = ? AND lost >= ?"
        )
        values = (*self._key, MAX_TRIES, self._run, total, index, lost)
        return int(self._rows(query, values)[0][0])

    def _do(self, query: str, values: Sequence[Any]) -> int:
        with self._lock, closing(self._base.execute(query, values)) as cursor:
            return cursor.rowcount

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        with self._lock, closing(self._base.execute(query, values)) as cursor:
            return cursor.fetchall()


def _opened(folder: Path) -> Path:
    """The file to use: in ``folder``, or in the system's folder for what may be lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / _FILE, timeout=60)) as base:
            base.execute("PRAGMA user_version = 1")  # a write: a folder may be read-only
        return folder / _FILE
    except (OSError, sqlite3.OperationalError):
        other = Path(tempfile.gettempdir()) / "ls-yolo"
        other.mkdir(parents=True, exist_ok=True)
        return other / _FILE


def _parts(tasks: Iterable[int]) -> Iterator[list[int]]:
    every = list(tasks)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]
