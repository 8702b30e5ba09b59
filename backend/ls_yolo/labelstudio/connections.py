"""The models that a project's connection names, read back from Label Studio when forgotten."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.selection import PREFIX, from_extra_params

log = logging.getLogger(__name__)

T = TypeVar("T")

KEPT = 1000
"""Of how many projects it is kept what their connections say; the one not used longest goes first,
and is asked for again."""


class Connections(Protocol):
    """What lists the ML backend connections of a project."""

    def connections(self, project: int) -> list[dict[str, Any]]:
        """Rows with ``url`` and ``extra_params``."""


class ConnectionCache(Generic[T]):
    """What a project's connection says in ``extra_params``, as ``parse`` understands it.

    Label Studio sends them in ``/setup`` only. A process that has not seen it, after a restart or
    on another replica, reads them back from Label Studio, so that the choice holds everywhere.
    """

    def __init__(
        self, studio: Connections | None, parse: Callable[[Any], T], lifetime: float = 30.0
    ) -> None:
        self._studio = studio
        self._parse = parse
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[float, T]] = OrderedDict()

    def remember(self, project: int | None, extra_params: Any) -> T:
        """Keeps what ``/setup`` brought, and returns what it says.

        Raises:
            SelectionError: ``extra_params`` does not name models.
        """
        names = self._parse(extra_params)
        if project is not None:
            with self._lock:
                self._known[project] = (time.monotonic() + self._lifetime, names)
                self._known.move_to_end(project)
                if len(self._known) > KEPT:
                    self._known.popitem(last=False)
        return names

    def recall(self, project: int | None, host: str) -> T:
        """What holds for ``project``; ``host`` is the name and port that Label Studio called us by.

        Where Label Studio cannot be asked, what it said last holds.

        Raises:
            StudioError: it cannot be asked, and has not said anything yet.
            SelectionError: what it has does not name models.
        """
        if project is None:
            return self._parse(None)
        with self._lock:
            expires, names = self._known.get(project, (0.0, None))
            if names is not None:
                self._known.move_to_end(project)
        if time.monotonic() < expires or self._studio is None:
            return self._parse(None) if names is None else names
        try:
            # Not under the lock: Label Studio calls /setup while it answers this.
            rows = self._studio.connections(project)
        except StudioError as error:
            if names is None:
                raise
            log.warning("project %s: %s; its last choice of models holds", project, error)
            return names
        # A connection whose URL names models is not the one that is asking.
        rows = [row for row in rows if PREFIX not in (row.get("url") or "")]
        ours = [row for row in rows if _address(row.get("url") or "") == _address(f"//{host}")]
        row = next(iter(ours or rows), {})
        return self.remember(project, row.get("extra_params"))


class ModelChoices(ConnectionCache[tuple[str, ...]]):
    """The models that a project's connection names in ``extra_params``."""

    def __init__(self, studio: Connections | None, lifetime: float = 30.0) -> None:
        super().__init__(studio, from_extra_params, lifetime)


def _address(url: str) -> tuple[str | None, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # a port that is no number
        return None, 0
