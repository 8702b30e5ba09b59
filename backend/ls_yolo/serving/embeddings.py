"""What a SAM has made of the last images: kept for the next click, made in a thread of its own."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ls_yolo.serving.batcher import QueueFull

log = logging.getLogger(__name__)

KEPT = 8
"""Of how many images embeddings are kept: 32 MB with SAM and MobileSAM, 128 MB with SAM 2."""
KEPT_FOR = 600.0
"""Seconds without a click after which one is not used again: the image may be another by then."""
WAITING = 4
"""How many images may wait for theirs."""
NICE = 5
"""How much less of a busy CPU the thread gets: models and other clicks have three quarters of it.
A CPU with nothing else to do is its own."""

_T = TypeVar("_T")
_running: weakref.WeakSet[Embeddings[Any]] = weakref.WeakSet()


@dataclass(eq=False)
class _Job(Generic[_T]):
    """``awaited``: by how many requests."""

    make: Callable[[], _T]
    made: Future[_T] = field(default_factory=Future)
    awaited: int = 0


class Embeddings(Generic[_T]):
    """Makes a value for each key, one at a time in a thread of its own, and keeps the last ones.

    What a request waits for is made first, then what was asked for last. For any thread.

    kept: how many values are kept, from 1; those used longest ago go first.
    waiting: how many may wait to be made, from 1.
    """

    def __init__(self, kept: int = KEPT, waiting: int = WAITING) -> None:
        self._kept, self._waiting = kept, waiting
        self._values: OrderedDict[Hashable, tuple[float, _T]] = OrderedDict()
        self._jobs: OrderedDict[Hashable, _Job[_T]] = OrderedDict()
        self._current: tuple[Hashable, _Job[_T]] | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def get(self, key: Hashable) -> _T | None:
        """What was made for ``key``, if it is still kept."""
        now = time.monotonic()
        with self._changed:
            for old in [k for k, (used, _) in self._values.items() if used < now - KEPT_FOR]:
                del self._values[old]
            if key not in self._values:
                return None
            _, value = self._values.pop(key)
            self._values[key] = now, value
            return value

    def start(self, key: Hashable, make: Callable[[], _T]) -> None:
        """Has ``make`` called for ``key`` in the background, unless it was or is about to be. Where
        too many wait, the one that was asked for first goes, or this one, if requests wait for all
        others."""
        with self._changed, contextlib.suppress(QueueFull):
            self._job(key, make)

    @contextlib.contextmanager
    def awaited(self, key: Hashable, make: Callable[[], _T]) -> Iterator[Future[_T]]:
        """What ``make`` makes for ``key``, once however many ask, and before what nobody waits for.

        Raises:
            QueueFull: requests wait for too many others.
        """
        with self._changed:
            if key in self._values:
                job = _Job(make)
                job.made.set_result(self._values[key][1])
            else:
                job = self._job(key, make)
            job.awaited += 1
        try:
            yield job.made
        finally:
            with self._changed:
                job.awaited -= 1

    def close(self, timeout: float | None = None) -> None:
        """Ends the thread; what still waits is not made."""
        with self._changed:
            self._closed = True
            for job in self._jobs.values():
                job.made.cancel()
            self._jobs.clear()
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout)

    def _job(self, key: Hashable, make: Callable[[], _T]) -> _Job[_T]:
        if self._current and self._current[0] == key:
            return self._current[1]
        if key in self._jobs:
            self._jobs.move_to_end(key)
            return self._jobs[key]
        if key in self._values:
            return _Job(make)
        if self._closed:
            raise QueueFull("the service stops")
        if len(self._jobs) >= self._waiting:
            first = next((k for k, job in self._jobs.items() if not job.awaited), None)
            if first is None:
                raise QueueFull(
                    f"{len(self._jobs)} images wait for a SAM to look at them; try again shortly"
                )
            self._jobs.pop(first).made.cancel()
        job = self._jobs[key] = _Job(make)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="embed", daemon=True)
            self._thread.start()
            _running.add(self)
        self._changed.notify_all()
        return job

    def _run(self) -> None:
        # Of this thread alone, and of those that torch starts from it.
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while taken := self._take():
            key, job = taken
            try:
                value = job.make()
            except BaseException as error:
                self._done(key)
                if not job.awaited:
                    log.warning("a SAM could not look at an image: %s", error)
                job.made.set_exception(error)
            else:
                self._done(key, value)
                job.made.set_result(value)
                del value
            del taken, job

    def _take(self) -> tuple[Hashable, _Job[_T]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            if not self._jobs:
                return None
            awaited = (key for key, job in self._jobs.items() if job.awaited)
            key = next(awaited, next(reversed(self._jobs)))
            self._current = key, self._jobs.pop(key)
            self._current[1].made.set_running_or_notify_cancel()
            return self._current

    def _done(self, key: Hashable, *values: _T) -> None:
        with self._changed:
            self._current = None
            for value in values:
                self._values[key] = time.monotonic(), value
                while len(self._values) > self._kept:
                    self._values.popitem(last=False)


@atexit.register
def _stop_all() -> None:
    """No thread may be inside native code when the interpreter goes."""
    for one in list(_running):
        one.close(timeout=5)
