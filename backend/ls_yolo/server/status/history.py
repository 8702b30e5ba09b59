"""The last hour, from the metrics that are kept anyway: no request pays for it."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Gauge, Histogram

from ls_yolo import metrics

log = logging.getLogger(__name__)

SPAN = 10.0
"""Seconds of a point."""
POINTS = 360
"""Points that are kept: an hour."""
LOOK = 2.0
"""Seconds between two looks at how many images wait: a gauge tells of now alone."""
ENDPOINT = "predict"
"""Whose latency is kept."""


@dataclass(frozen=True)
class Point:
    """What happened in a span of time.

    at: its end, as `time.time`. seconds: its length.
    images: by model, how many went through it.
    waiting: the most images that waited at a time, of those looked at.
    requests: answers to ``/predict``; median, slow: how many seconds half of them, and 95 of 100,
        took at most; None where there were none.
    """

    at: float
    seconds: float
    images: Mapping[str, float] = field(default_factory=dict)
    waiting: float = 0.0
    requests: float = 0.0
    median: float | None = None
    slow: float | None = None

    @property
    def rate(self) -> float:
        """Images a second, of all models."""
        return sum(self.images.values()) / self.seconds


@dataclass(frozen=True)
class _Counters:
    """The metrics as they stand. buckets: upper bound in seconds to how many answers took no more,
    from the start of the process."""

    at: float
    clock: float
    images: Mapping[str, float]
    buckets: Mapping[float, float]


class History:
    """Points of `SPAN` seconds, the oldest of `POINTS` first; safe to read from any thread.

    clock, wall: seconds, as `time.monotonic` and `time.time`.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._points: deque[Point] = deque(maxlen=POINTS)
        self._waiting = 0.0
        self._last = self._read()

    def start(self) -> None:
        """Looks every `LOOK` seconds from now on, in a thread that ends with the process."""
        threading.Thread(target=self._run, name="history", daemon=True).start()

    def look(self) -> None:
        """Takes note of how it is now; a span that is over becomes a point."""
        self._waiting = max(self._waiting, sum(_values(metrics.QUEUE_DEPTH, "").values()))
        if self._clock() - self._last.clock < SPAN:
            return
        new = self._read()
        self._points.append(_point(self._last, new, self._waiting))
        self._last, self._waiting = new, 0.0

    @property
    def points(self) -> Sequence[Point]:
        """What is kept, the oldest first."""
        return list(self._points)

    def rates(self, seconds: float = 60.0) -> Mapping[str, float]:
        """Images a second by model, over about the last ``seconds``."""
        recent = self.points[-max(round(seconds / SPAN), 1) :]
        over = sum(point.seconds for point in recent)
        models = {model for point in recent for model in point.images}
        return {
            model: sum(point.images.get(model, 0.0) for point in recent) / over for model in models
        }

    def _read(self) -> _Counters:
        return _Counters(
            self._wall(),
            self._clock(),
            _values(metrics.IMAGES, "_total"),
            _buckets(metrics.REQUEST_SECONDS, ENDPOINT),
        )

    def _run(self) -> None:
        for _ in itertools.count():
            time.sleep(LOOK)
            try:
                self.look()
            except Exception:  # the page says less, and nothing else needs it
                log.exception("the last hour could not be looked at; trying again")


def _point(before: _Counters, after: _Counters, waiting: float) -> Point:
    images = {model: count - before.images.get(model, 0.0) for model, count in after.images.items()}
    took = {bound: count - before.buckets.get(bound, 0.0) for bound, count in after.buckets.items()}
    return Point(
        after.at,
        max(after.clock - before.clock, 1e-9),
        {model: count for model, count in images.items() if count},
        waiting,
        max(took.values(), default=0.0),
        quantile(took, 0.5),
        quantile(took, 0.95),
    )


def quantile(buckets: Mapping[float, float], part: float) -> float | None:
    """What ``part`` (0 to 1) of the observations are at most, as Prometheus estimates it; None
    where there are none.

    buckets: upper bound, infinity too, to how many observations are at most that.
    """
    ordered = sorted(buckets.items())
    total = ordered[-1][1] if ordered else 0.0
    if total <= 0:
        return None
    low, below = 0.0, 0.0
    for bound, count in ordered:
        if count >= part * total:
            if bound == float("inf"):
                return low
            return low + (bound - low) * (part * total - below) / (count - below or 1.0)
        low, below = bound, count
    return low


def _values(metric: Counter | Gauge, end: str) -> dict[str, float]:
    """By model."""
    return {labels["model"]: value for labels, value in _samples(metric, end)}


def _buckets(metric: Histogram, endpoint: str) -> dict[float, float]:
    """Upper bound in seconds to how many were at most that, from the start of the process."""
    found = _samples(metric, "_bucket")
    return {float(of["le"]): value for of, value in found if of["endpoint"] == endpoint}


def _samples(
    metric: Counter | Gauge | Histogram, end: str
) -> Iterator[tuple[Mapping[str, str], float]]:
    """Labels and value of the samples whose name ends so; ``_created`` and the like are left."""
    for family in metric.collect():
        for sample in family.samples:
            if sample.name == family.name + end:
                yield sample.labels, sample.value
