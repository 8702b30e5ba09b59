"""A batcher a model: every request's images go through its queue, in batches."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, cast

from ls_yolo import metrics
from ls_yolo.engines.base import Engine, Overlapping, Prepared
from ls_yolo.errors import RequestError
from ls_yolo.results import Image, Result

log = logging.getLogger(__name__)

URGENT_FOR = 30.0
"""So many seconds after an urgent image the batches stay small, since the next may come at any
time, and none is interrupted."""
URGENT_BATCH = 2
"""The most images of a batch then: with more, a click would wait longer than people notice."""

SILENT = 0.5
"""After so many seconds it is looked whether an image has ended: OpenVINO tells of none that
failed."""

_running: weakref.WeakSet[Batcher] = weakref.WeakSet()


class QueueFull(RequestError):
    """More images wait for a model than its queue may hold; try again shortly."""

    status = 429


class Released(RequestError):
    """The model was replaced or unloaded; ask the registry for it again."""

    status = 503


@dataclass(frozen=True)
class BatchOptions:
    """How images go together.

    batch_size: the most images of one engine call, from 1.
    window: the most seconds that a batch waits for images which are being prepared, from 0.
    queue_size: the most images that may wait, or be promised by `Batcher.reserve`, from 1.
    """

    batch_size: int = 8
    window: float = 0.002
    queue_size: int = 256

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> BatchOptions:
        """The options that the settings ``values`` say."""
        return cls(values["BATCH_SIZE"], values["BATCH_WINDOW_MS"] / 1000, values["QUEUE_SIZE"])


@dataclass(eq=False, slots=True)
class _Item:
    prepared: Prepared
    conf: float
    iou: float
    answer: Future[Result]
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Runs an engine for many threads: one queue, and one thread that empties it in batches.

    A batch is what waits, what is urgent first. If less waits than ``options.batch_size`` and more
    is being prepared (see `pending`), it is waited for a little; a lone image never waits.

    An `Overlapping` engine gets the first batch so, and from then on an image for each that is
    done, until none waits.

    name: what the metrics call it.
    """

    def __init__(
        self,
        engine: Engine,
        options: BatchOptions = BatchOptions(),
        name: str = "model",
    ) -> None:
        self.name = name
        self._engine = engine
        self.batch_size = options.batch_size
        self.queue_size = options.queue_size
        self._window = options.window
        self._items: deque[_Item] = deque()
        self._urgent: deque[_Item] = deque()
        self._urgent_at = -math.inf
        self._changed = threading.Condition()
        self._coming = 0
        self._promised = 0
        self._holders = 0
        self._closing = False  # no new holder
        self._closed = False  # no new image
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        _running.add(self)

    @property
    def depth(self) -> int:
        """How many images wait."""
        return len(self._items) + len(self._urgent)

    @property
    def description(self) -> str:
        """What runs the model, for people."""
        return self._engine.description

    @property
    def imgsz(self) -> int:
        """See `engines.Engine.imgsz`."""
        return self._engine.imgsz

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Prepared:
        """See `engines.Engine.prepare`; for any thread."""
        return self._engine.prepare(image, imgsz, size)

    @contextlib.contextmanager
    def reserve(self, places: int = 0) -> Iterator[None]:
        """Keeps the engine loaded, and ``places`` of the queue free for the caller, meanwhile.

        Raises:
            QueueFull: so many places are not free.
            Released: the engine is being released already.
        """
        with self._changed:
            if self._closing:
                raise Released("the model was replaced")
            if places and self._promised + places > self.queue_size:
                raise QueueFull(self._full())
            self._promised += places
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._promised -= places
                self._holders -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def pending(self) -> Iterator[None]:
        """Says that an image is being made ready, so that a batch may wait for it a little."""
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify_all()

    def submit(
        self, prepared: Prepared, conf: float, iou: float, urgent: bool = False
    ) -> Future[Result]:
        """The result of an image, once its batch has run. A future that is cancelled is not run.

        urgent: a person waits for it, so it goes before all others.

        Raises:
            QueueFull: the queue is full.
            Released: the engine was released.
        """
        item = _Item(prepared, conf, iou, Future())
        with self._changed:
            if self._closed:
                raise Released("the model was replaced")
            lane = self._urgent if urgent else self._items
            if len(lane) >= self.queue_size:
                # Those that nobody waits for any longer take no place.
                kept = [i for i in lane if not i.answer.cancelled()]
                lane.clear()
                lane.extend(kept)
                if len(lane) >= self.queue_size:
                    raise QueueFull(self._full())
            lane.append(item)
            if urgent:
                self._urgent_at = item.since
            self._changed.notify_all()
        metrics.QUEUE_DEPTH.labels(self.name).set(self.depth)
        return item.answer

    def release(self) -> None:
        """Gives the engine's memory back, once every holder is gone and every image answered."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: not self._holders)
        self._stop()

    def _stop(self, timeout: float | None = None) -> None:
        with self._changed:
            self._closing = self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _full(self) -> str:
        return f"the queue is full: {self.queue_size} images wait for the model; try again shortly"

    def _run(self) -> None:
        while batch := self._take():
            slots = self._engine.slots
            # More than that are there where another engine has taken over meanwhile.
            if slots > 1 and len(batch) <= slots:
                self._overlap(batch)
            else:
                # One call has one iou. Unlike thresholds go together: a box below the lowest is in
                # nobody's answer, and one above it never hides behind one with a lower score.
                for _, group in itertools.groupby(
                    sorted(batch, key=lambda item: item.iou), key=lambda item: item.iou
                ):
                    self._answer(list(group))
            del batch  # an idle batcher holds no images
        self._engine.release()

    def _overlap(self, first: list[_Item]) -> None:
        """Keeps the engine's slots full until nothing waits and nothing is under way."""
        engine = cast(Overlapping, self._engine)
        waiting = deque(first)
        first.clear()
        running: dict[_Item, Any] = {}
        done: set[_Item] = set()

        def ended(item: _Item) -> None:  # called by the engine's threads
            with self._changed:
                done.add(item)
                self._changed.notify_all()

        while waiting or running:
            while waiting:
                item = waiting.popleft()
                # So few at a time that cores would stand still are computed by all of them too.
                few = self._size() < engine.slots - 1
                alone = few or not (running or waiting or self.depth or self._coming)
                metrics.BATCH_SIZE.labels(self.name).observe(len(running) + 1)
                began = time.monotonic()
                try:
                    run = engine.start(item.prepared, alone, functools.partial(ended, item))
                except Exception as error:
                    item.answer.set_exception(error)
                else:
                    running[item] = began, run
            with self._changed:
                self._changed.wait_for(
                    lambda: done or not running or (self.depth and len(running) < self._room()),
                    SILENT,
                )
                ready = [
                    item for item, (_, run) in running.items() if item in done or engine.ended(run)
                ]
                done.clear()
                waiting.extend(self._next(len(running) - len(ready)))
            for item in ready:
                self._finish(item, *running.pop(item))

    def _finish(self, item: _Item, began: float, run: Any) -> None:
        engine = cast(Overlapping, self._engine)
        try:
            result = engine.finish(run, item.conf, item.iou)
        except Exception as error:
            item.answer.set_exception(error)
        else:
            metrics.IMAGES.labels(self.name).inc()
            item.answer.set_result(result)
        finally:
            metrics.STAGE.labels("infer").observe(time.monotonic() - began)

    def _take(self) -> list[_Item]:
        """The next batch; empty once released."""
        batch: list[_Item] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self.depth or self._closed)
                if not self.depth:
                    return []
                self._changed.wait_for(
                    lambda: (
                        self.depth >= self._size()
                        or self._urgent
                        or not self._coming
                        or self._closed
                    ),
                    self._window,
                )
                batch = self._next(0)
        return batch

    def _next(self, under_way: int) -> list[_Item]:
        """Of what waits as many as there is room for, what is urgent first; the lock is held."""
        batch: list[_Item] = []
        now = time.monotonic()
        while self.depth and under_way + len(batch) < self._room():
            item = (self._urgent or self._items).popleft()
            if item.answer.set_running_or_notify_cancel():
                metrics.STAGE.labels("queue").observe(now - item.since)
                batch.append(item)
        metrics.QUEUE_DEPTH.labels(self.name).set(self.depth)
        return batch

    def _size(self) -> int:
        """The most images of the next batch."""
        clicked = time.monotonic() - self._urgent_at < URGENT_FOR
        most = self.batch_size
        if self._engine.slots > 1:
            most = min(most, self._engine.slots)
        return min(most, URGENT_BATCH) if clicked else most

    def _room(self) -> int:
        """The most images under way at a time; what is urgent may go where cores are free."""
        most = self._size()
        return max(most, min(self.batch_size, self._engine.slots - 1)) if self._urgent else most

    def _answer(self, items: Sequence[_Item]) -> None:
        try:
            with metrics.stage("infer"):
                found = self._engine.predict(
                    [item.prepared for item in items],
                    min(item.conf for item in items),
                    items[0].iou,
                )
            if len(found) != len(items):
                raise RuntimeError(f"the engine gave {len(found)} answers to {len(items)} images")
        except Exception as error:
            if len(items) == 1:
                items[0].answer.set_exception(error)
                return
            log.warning("a batch of %d failed, so each is tried alone: %s", len(items), error)
            for item in items:
                self._answer([item])
            return
        metrics.BATCH_SIZE.labels(self.name).observe(len(items))
        metrics.IMAGES.labels(self.name).inc(len(items))
        for item, result in zip(items, found, strict=True):
            item.answer.set_result(result.above(item.conf))


@atexit.register
def _stop_all() -> None:
    """No thread may be inside an engine's native code when the interpreter goes."""
    for batcher in list(_running):
        batcher._stop(timeout=5)
