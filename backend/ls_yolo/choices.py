"""What Label Studio remembers of each project's model choice, read back when this process does not."""

from __future__ import annotations

import threading
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

from ls_yolo.selection import from_extra_params


class Connections(Protocol):
    """What lists the ML backend connections of a project."""

    def connections(self, project: int) -> list[dict[str, Any]]:
        """Rows with ``url`` and ``extra_params``."""


class Choices:
    """The models that a project's connection names in ``extra_params``.

    Label Studio sends them in ``/setup`` only. A process that has not seen it, after a restart or on
    another replica, reads them back from Label Studio, so that the choice holds everywhere.
    """

    def __init__(self, studio: Connections | None, lifetime: float = 30.0) -> None:
        self._studio = studio
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._known: dict[int, tuple[float, tuple[str, ...]]] = {}

    def remember(self, project: int | None, extra_params: Any) -> tuple[str, ...]:
        """Keeps what ``/setup`` brought, and returns the names in it.

        Raises:
            SelectionError: ``extra_params`` does not name models.
        """
        names = from_extra_params(extra_params)
        if project is not None:
            with self._lock:
                self._known[project] = (time.monotonic() + self._lifetime, names)
        return names

    def recall(self, project: int | None, host: str) -> tuple[str, ...]:
        """The names for ``project``; ``host`` is the name and port that Label Studio called us by.

        Raises:
            StudioError: Label Studio cannot be asked.
            SelectionError: what it has does not name models.
        """
        if project is None:
            return ()
        with self._lock:
            expires, names = self._known.get(project, (0.0, ()))
        if time.monotonic() < expires or self._studio is None:
            return names
        # Not under the lock: Label Studio calls /setup while it answers this.
        rows = self._studio.connections(project)
        ours = [row for row in rows if urlsplit(row.get("url") or "").netloc == host]
        row = next(iter(ours or rows), {})
        return self.remember(project, row.get("extra_params"))
