"""Texts by project and key: what a class stores with ``set``."""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ProjectKey = tuple[str, str]


class BaseCache(ABC):
    """Texts by (project, key); ``path`` is the folder that they are kept in."""

    def __init__(self, path: str | Path) -> None:
        self.path = path

    @abstractmethod
    def __getitem__(self, project_id_key: ProjectKey) -> str | None:
        """The text, or None."""

    @abstractmethod
    def __setitem__(self, project_id_key: ProjectKey, value: str) -> None:
        """Stores a text. Raises ValueError where it is none."""

    @abstractmethod
    def __delitem__(self, project_id_key: ProjectKey) -> None:
        """Forgets a text, if there is one."""

    def __contains__(self, project_id_key: ProjectKey) -> bool:
        return self[project_id_key] is not None


class SqliteCache(BaseCache):
    """In a file, which outlives the process.

    Raises:
        OSError, sqlite3.Error: the file cannot be made.
    """

    def __init__(self, path: str | Path, db_name: str = "cache.db") -> None:
        super().__init__(path)
        Path(path).mkdir(parents=True, exist_ok=True)
        self.db_name = str(Path(path) / db_name)
        with self._open() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS kept"
                " (project TEXT, key TEXT, value TEXT, PRIMARY KEY (project, key))"
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Sqlite's own "with" ends a transaction and leaves the file open.
        with contextlib.closing(sqlite3.connect(self.db_name, timeout=10)) as database, database:
            yield database

    def __getitem__(self, project_id_key: ProjectKey) -> str | None:
        with self._open() as database:
            query = "SELECT value FROM kept WHERE project = ? AND key = ?"
            row = database.execute(query, project_id_key).fetchone()
        return None if row is None else str(row[0])

    def __setitem__(self, project_id_key: ProjectKey, value: str) -> None:
        check(project_id_key, value)
        with self._open() as database:
            database.execute("REPLACE INTO kept VALUES (?, ?, ?)", (*project_id_key, value))

    def __delitem__(self, project_id_key: ProjectKey) -> None:
        with self._open() as database:
            database.execute("DELETE FROM kept WHERE project = ? AND key = ?", project_id_key)


class MemoryCache(BaseCache):
    """Where there is no folder that can be written to: it lasts as long as the process."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._texts: dict[ProjectKey, str] = {}

    def __getitem__(self, project_id_key: ProjectKey) -> str | None:
        return self._texts.get(project_id_key)

    def __setitem__(self, project_id_key: ProjectKey, value: str) -> None:
        check(project_id_key, value)
        self._texts[project_id_key] = value

    def __delitem__(self, project_id_key: ProjectKey) -> None:
        self._texts.pop(project_id_key, None)


def check(project_id_key: ProjectKey, value: object) -> None:
    """Raises ValueError where ``value`` is no text."""
    if not isinstance(value, str):
        raise ValueError(
            f"set({project_id_key[1]!r}): found {type(value).__name__}, expected str; "
            "json.dumps makes one"
        )


def create_cache(cache_type: str, path: str | Path, **kwargs: Any) -> BaseCache:
    """A cache in the folder ``path``.

    Raises:
        ValueError: ``cache_type`` is not ``sqlite``.
    """
    if cache_type != "sqlite":
        raise ValueError(f"cache_type: found {cache_type!r}, expected 'sqlite'")
    return SqliteCache(path, **kwargs)
