"""Waiting for a service that is away: it may be restarting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ls_yolo.labelstudio.bulk import StudioDown

PATIENCE = 180.0
"""How long a service may be away, in seconds since the first try failed."""
FIRST, LONGEST = 0.25, 5.0
"""The first and the longest pause between two tries, in seconds."""

T = TypeVar("T")


class Stopped(Exception):
    """The run ends; nobody waits for this any longer."""


class Patience:
    """How much longer one waits for a service. The clock begins when the first try has failed, and
    what further ones take counts: a service that lets each of them wait is away as well.

    stop: set when the run ends.
    """

    def __init__(self, stop: threading.Event, seconds: float = PATIENCE) -> None:
        self._stop = stop
        self._seconds = seconds
        self._until: float | None = None
        self._next = FIRST

    def wait(self, error: Exception) -> None:
        """Returns when it is time for another try.

        Raises:
            Stopped: the run ends.
            Exception: ``error`` itself, once all patience is used up.
        """
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            raise error
        pause = min(self._next, self._until - now)
        self._next = min(self._next * 2, LONGEST)
        if self._stop.wait(pause):
            raise Stopped(str(error)) from error


def patiently(
    ask: Callable[[], T],
    stop: threading.Event,
    seconds: float = PATIENCE,
    away: type[Exception] = StudioDown,
) -> T:
    """What ``ask`` returns, as soon as the service is there for it, Label Studio unless ``away``,
    which says that it is not, is of another.

    Raises:
        StudioDown, or ``away``: it was away for too long.
        StudioError: it refuses.
        Stopped: the run ends.
    """
    patience = Patience(stop, seconds)
    while True:
        try:
            return ask()
        except away as error:
            patience.wait(error)
