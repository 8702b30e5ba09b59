"""Tasks that could not be predicted, and why, kept from run to run.

What is stored in Label Studio needs no copy here: which tasks lack a prediction, it says itself.
What failed is stored nowhere, or each run would begin with the same broken images.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

MAX_TRIES = 3
"""Runs that a task may fail in before it is left out."""
_FILE = "quarantine.sqlite"
_ALIVE = "quarantine-{}.alive"
"""Locked for as long as the run lives that it is named after, also against other containers."""
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
_STARTED = """
CREATE TABLE IF NOT EXISTS started (
    studio TEXT, project TEXT, version TEXT, task INTEGER, run TEXT NOT NULL,
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

    A file that cannot be used costs no run: it is set aside if it is damaged, and what fails is
    known until the run ends.

    Args:
        folder: where the file is; made with the first failure if it is not there.
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
        self._folder = folder
        self._base: sqlite3.Connection | None = None
        self._file: Path | None = None  # what it is connected to; None: memory
        self._given_up = False
        self._alive: IO[bytes] | None = None

    def fail(self, task: int, reason: str, lost: bool = False, run: str = "") -> None:
        """Keeps that a task failed in this run, or another, and why; ``lost``: with its whole
        request, whose end may have been the backend's."""
        self._do(
            "INSERT INTO failures VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "tries = tries + (run <> excluded.run), reason = excluded.reason, "
            "last = excluded.last, run = excluded.run, lost = excluded.lost",
            (*self._key, task, reason, time.time(), run or self._run, lost),
        )

    def begin(self, tasks: Sequence[int]) -> None:
        """Keeps that this process predicts ``tasks``, one of which may end it."""
        self._live()
        rows = ",".join(["(?, ?, ?, ?, ?)"] * len(tasks))
        values = [value for task in tasks for value in (*self._key, task, self._run)]
        self._do(f"INSERT OR REPLACE INTO started VALUES {rows}", values)

    def end(self, tasks: Sequence[int] | None = None) -> None:
        """Forgets that this process predicts ``tasks``, or any."""
        marks = "1" if tasks is None else f"task IN ({','.join('?' * len(tasks))})"
        self._do(
            f"DELETE FROM started WHERE {_MINE} AND run = ? AND {marks}",
            (*self._key, self._run, *(tasks or ())),
        )
        with self._lock:
            if tasks is None and self._alive:
                with contextlib.suppress(OSError):
                    Path(self._alive.name).unlink()
                self._alive.close()
                self._alive = None

    def _live(self) -> None:
        """Shows other processes that this run lives, before they see what it has under way."""
        # Without a file, what is under way is seen by nobody; what cannot be locked counts as gone.
        with self._lock, contextlib.suppress(sqlite3.Error, BlockingIOError):
            self._open(write=True)
            if self._alive is None and self._file:
                self._alive = _locked(self._file.with_name(_ALIVE.format(self._run)), make=True)

    def suspects(self) -> list[int]:
        """The tasks that a process was predicting when it ended, each of which has failed in that
        run; they are returned once."""
        index, total = self._shard
        mine = f"{_MINE} AND task % ? = ?"
        values = (*self._key, total, index)
        runs = self._rows(f"SELECT DISTINCT run FROM started WHERE {mine}", values)
        found: list[int] = []
        for (run,) in runs:
            if run == self._run or not self._gone(run):
                continue
            # Read now: one that ended as it should has deleted them before it was gone.
            which = f"{mine} AND run = ?"
            rows = self._rows(f"SELECT task FROM started WHERE {which}", (*values, run))
            for (task,) in rows:
                self.fail(task, "the process that predicted it ended", lost=True, run=run)
                found.append(int(task))
            self._do(f"DELETE FROM started WHERE {which}", (*values, run))
        return sorted(found)

    def _gone(self, run: str) -> bool:
        """Whether a run has ended: nobody holds the lock of its file."""
        file = self._file
        if file is None:
            return True
        path = file.with_name(_ALIVE.format(run))
        try:
            held = _locked(path)
        except BlockingIOError:
            return False
        if held:
            with held, contextlib.suppress(OSError):
                path.unlink()
        return True

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

    def of(self, tasks: Iterable[int]) -> Iterator[Failure]:
        """The failures of ``tasks``, read in parts."""
        for some in _parts(tasks):
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT task, reason, tries, last FROM failures WHERE {_MINE} "
                f"AND task IN ({marks}) ORDER BY task"
            )
            yield from (Failure(*row) for row in self._rows(query, (*self._key, *some)))

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
        return self._execute(query, values, write=True)[0]

    def _rows(self, query: str, values: Sequence[Any]) -> list[Any]:
        return self._execute(query, values)[1]

    def _execute(
        self, query: str, values: Sequence[Any], write: bool = False
    ) -> tuple[int, list[Any]]:
        """How many rows a statement has changed, and those that it finds."""
        with self._lock:
            try:
                return _execute(self._open(write), query, values)
            except sqlite3.Error as error:
                self._give_up(error)
                return _execute(self._open(write), query, values)

    def _open(self, write: bool) -> sqlite3.Connection:
        """What keeps the failures: the file, which a reader does not make, or memory."""
        if self._base is None or (write and self._file is None and not self._given_up):
            if self._base:
                self._base.close()
            there = any((place / _FILE).exists() for place in _folders(self._folder))
            self._file = _opened(self._folder) if write or there else None
            self._base = _connected(self._file or ":memory:")
        return self._base

    def _give_up(self, error: sqlite3.Error) -> None:
        """Goes on without the file. Who finds a damaged one begins anew the next time."""
        log.warning(
            "%s: %s; which tasks failed before is not known", self._file or self._folder, error
        )
        if self._base:
            self._base.close()
        # Its subclass says that the disk is full, or another process has it for too long.
        if self._file and not isinstance(error, sqlite3.OperationalError):
            try:
                self._file.replace(self._file.with_suffix(".damaged"))
                for more in ("-wal", "-shm"):
                    self._file.with_name(self._file.name + more).unlink(missing_ok=True)
            except OSError as fault:
                log.warning("%s: cannot be set aside: %s", self._file, fault)
        self._file, self._base, self._given_up = None, _connected(":memory:"), True


def _execute(base: sqlite3.Connection, query: str, values: Sequence[Any]) -> tuple[int, list[Any]]:
    with closing(base.execute(query, values)) as cursor:
        return cursor.rowcount, cursor.fetchall()


def _connected(path: Path | str) -> sqlite3.Connection:
    base = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    try:
        base.execute("PRAGMA journal_mode = WAL")
        # Each failure is a transaction of its own, which does not wait for the disk: what a machine
        # that loses its power has not written is found out again.
        base.execute("PRAGMA synchronous = NORMAL")
        base.execute(_TABLE)
        base.execute(_STARTED)
    except sqlite3.Error:
        base.close()
        raise
    return base


def _locked(path: Path, make: bool = False) -> IO[bytes] | None:
    """The file, locked until it is closed, or the process ends, however; None: it is not there,
    or cannot be.

    Raises:
        BlockingIOError: another has it locked.
    """
    try:
        file = path.open("ab" if make else "rb")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise
    except OSError:  # a file system without locks
        file.close()
        return None
    return file


def _folders(folder: Path) -> tuple[Path, Path]:
    """Where the file may be: in ``folder``, or in the system's folder for what may be lost."""
    return folder, Path(tempfile.gettempdir()) / "ls-yolo"


def _opened(folder: Path) -> Path:
    """The file to write to, which is made.

    Raises:
        sqlite3.Error: there is no place for it.
    """
    for place in _folders(folder):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(place / _FILE, timeout=60)) as base:
                base.execute("PRAGMA user_version = 1")  # a write: a folder may be read-only
            return place / _FILE
        except (OSError, sqlite3.OperationalError):
            continue
        except sqlite3.DatabaseError:
            return place / _FILE  # damaged, as who uses it finds out
    raise sqlite3.OperationalError("found no folder that can be written to")


def _parts(tasks: Iterable[int]) -> Iterator[list[int]]:
    every = list(tasks)
    for start in range(0, len(every), _AT_ONCE):
        yield every[start : start + _AT_ONCE]
