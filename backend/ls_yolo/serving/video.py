"""A video through models: its frames, a few at a time, and what becomes of their results."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ls_yolo import controls, metrics
from ls_yolo.controls import Region, video_rectangle
from ls_yolo.controls.base import Target
from ls_yolo.controls.clock import Clock, Footage, Moments, Tracks, frame_rate
from ls_yolo.images.limits import MediaError
from ls_yolo.images.video import Frame, Video
from ls_yolo.labelstudio.label_config import Shown
from ls_yolo.results import Boxes, Classes, Image, Result
from ls_yolo.serving import tracking
from ls_yolo.serving.batcher import Batcher
from ls_yolo.serving.loading import Model
from ls_yolo.serving.planning import ControlBinding
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.tracking import Sights, Tracker

SECONDS = 80.0
"""How long the videos of a request may take, of the 100 s that Label Studio gives it."""
LOOK, LOOK_FRAMES = 5.0, 24
"""After so many seconds and frames of a video it is foreseen how long it takes: the first ones may
be slow. After four times those seconds in any case."""
DOUBT = 1.25
"""By how much longer than is left this must be for a video to be given up before its time."""
FRAMES = 128 << 20
"""What the frames that wait for a model, or for a tracker, may take together, in bytes."""

UNLIKE = 0.005
"""By what part the rates of a file and of its Video tag may differ before it is said: NTSC's 29.97
is called 30."""
NAME = "the video"
log = logging.getLogger(__name__)

Key = tuple[str, float]
"""What frames are predicted once for: the version of a model, and an overlap."""


class TooLong(MediaError):
    """A video cannot be predicted in the time that there is; the message says how long it takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "too_slow")


@dataclass(frozen=True)
class Budget:
    """Until when the videos of a request must be done.

    seconds: in all; infinite where nobody waits.
    began: when the request began (`time.monotonic`).
    """

    seconds: float = SECONDS
    began: float = field(default_factory=time.monotonic)

    def check(self, name: str, since: float, frames: int, done: float, whole: float) -> None:
        """Returns if the video ``name`` may go on.

        since: when its work began (`time.monotonic`). frames: how many of it are done. done, whole:
        seconds of it that are done, and all; 0 where that is not known.

        Raises:
            TooLong: the time is over, or will be before the video is.
        """
        now = time.monotonic()
        left, took = self.began + self.seconds - now, now - since
        ahead = took * (whole / done - 1) if 0 < done < whole else 0.0
        early = took < LOOK or (frames < LOOK_FRAMES and took < 4 * LOOK)
        if left > 0 and (early or ahead <= left * DOUBT):
            return
        had = max(left + took, 0.0)
        needs, fits = "was not begun", ""
        if done:
            needs = f"would take about {took + ahead:.0f} s at {frames / took:.1f} frames a second"
            fits = f"cut it into parts of {done / took * self.seconds / DOUBT:.0f} s; "
        raise TooLong(
            f"{name}: {needs}, and {had:.0f} s were left of the {self.seconds:.0f} s that there "
            f"are for a request. Send fewer videos at a time; {fits}set a lower frameRate in the "
            "Video tag (the frames between are then skipped); or take a smaller model"
        )


class Follower(Protocol):
    """What becomes of a model's results, frame by frame."""

    def take(self, at: int, result: Result, image: Image) -> None:
        """The result of the frame number ``at`` of those looked at, from 0."""

    def done(self, footage: Footage) -> Tracks | Moments:
        """All of it, after the last frame."""


class Tracking:
    """Boxes that become objects."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._at: list[int] = []
        self._sights = [Sights(np.zeros(0, np.int64), Boxes.none())]

    def take(self, at: int, result: Result, image: Image) -> None:
        assert not isinstance(result, Classes)
        seen = self._tracker.update(result.boxes, image)
        if len(seen.ids):
            self._at += [at] * len(seen.ids)
            self._sights.append(seen)

    def done(self, footage: Footage) -> Tracks:
        return Tracks(
            footage,
            np.array(self._at, np.int64),
            np.concatenate([seen.ids for seen in self._sights]),
            np.concatenate([seen.boxes.xyxy for seen in self._sights]),
            np.concatenate([seen.boxes.scores for seen in self._sights]),
            np.concatenate([seen.boxes.classes for seen in self._sights]),
        )


class Judging:
    """Frames taken for something as a whole. ``classes``: those whose scores are kept."""

    def __init__(self, classes: Sequence[int]) -> None:
        self._classes = np.array(sorted(classes), np.int64)
        self._scores: list[npt.NDArray[np.float32]] = []

    def take(self, at: int, result: Result, image: Image) -> None:
        assert isinstance(result, Classes)
        self._scores.append(result.scores[self._classes])

    def done(self, footage: Footage) -> Moments:
        return Moments(footage, self._classes, np.stack(self._scores))


@dataclass(frozen=True)
class Run:
    """A model on a video.

    conf: the score, 0 to 1, that what the ``follower`` takes must exceed.
    iou: the overlap, 0 to 1, above which two boxes of a class are one.
    """

    model: Model
    conf: float
    iou: float
    follower: Follower

    @property
    def key(self) -> Key:
        return self.model.version, self.iou


def regions(
    task: Mapping[str, Any],
    shown: Sequence[tuple[ControlBinding, Shown]],
    reader: ImageReader,
    budget: Budget,
    wait: Callable[[Future[Result]], Result],
) -> list[Region]:
    """The regions of the videos of ``task``: ``shown`` is what draws on which. Each video is read
    once.

    wait: see `watch`.

    Raises:
        MediaError, StudioError: a video cannot be had, or not in the time of ``budget``.
        LabelConfigError: a tracker does not take its parameters.
        QueueFull, Released: see `Batcher.submit`.
    """
    found: list[Region] = []

    def place(one: tuple[ControlBinding, Shown]) -> tuple[str, float]:
        return one[1].url, frame_rate(one[1].control, task.get("data"))

    for (url, rate), group in itertools.groupby(sorted(shown, key=place), key=place):
        together = list(group)
        with reader.opened(task, url) as path, Video(path, NAME) as video:
            if video.rate and abs(video.rate - rate) > UNLIKE * rate:
                log.warning(
                    "task %s: the video has %.5g frames a second, its Video tag %.5g: Label Studio "
                    'counts frames by the tag; set frameRate="%.5g", or a field of the task',
                    *(task.get("id", "?"), video.rate, rate, video.rate),
                )
            runs = [_run(binding) for binding, _ in together]
            results = watch(video, NAME, Clock(rate), runs, budget, wait)
            size = video.width, video.height
        for (binding, one), result in zip(together, results, strict=True):
            kind = controls.of(one.control)
            assert kind is not None  # `planning.plan` took no other
            labels = binding.labels_of(one.control)
            target = Target(one.control, labels, binding.model.names, *size, binding.conf)
            with metrics.stage("encode"):
                found += kind.encode(target, result)
    return found


def _run(binding: ControlBinding) -> Run:
    model, control = binding.model, binding.control
    if binding.tracker is None:
        return Run(model, 0.0, model.entry.iou, Judging(range(len(model.names))))
    iou = control.number("model_iou", 0, 1)
    conf = video_rectangle.followed(control, binding.conf)
    iou = model.entry.iou if iou is None else iou
    return Run(model, conf, iou, Tracking(tracking.make(binding.tracker)))


def places(batcher: Batcher, width: int = 0, height: int = 0) -> int:
    """How many frames of a video, which are that large, wait for ``batcher`` at a time; at most as
    many as of one without a size."""
    most = min(2 * batcher.batch_size, batcher.queue_size)
    return max(1, min(most, FRAMES // (width * height * 3 or 1)))


def watch(
    video: Video,
    name: str,
    clock: Clock,
    runs: Sequence[Run],
    budget: Budget,
    wait: Callable[[Future[Result]], Result],
) -> list[Tracks | Moments]:
    """What the followers of ``runs`` make of ``video``, in their order.

    Of frames that Label Studio shows as one the first is looked at. A model that several runs have
    sees each frame once. Frames are read and made ready in a thread of their own, a few ahead.

    name: what messages call the video. wait: waits for a future; what it raises ends the work.

    Raises:
        TooLong: the video is not done by ``budget``.
        MediaError: a frame is damaged.
        QueueFull, Released: see `Batcher.submit`.
    """
    since, step = time.monotonic(), 1 / (video.rate or clock.rate)
    frames: list[int] = []
    end = 0.0
    keys = {run.key: run.model.batcher for run in runs}
    asked = Counter(keys.values())  # of a model that is asked twice, each frame takes two places
    most = min(
        max(places(batcher, video.width, video.height) // count - 1, 1)
        for batcher, count in asked.items()
    )
    with contextlib.closing(_ahead(_queued(video, clock, runs), most)) as ahead:
        for coming in ahead:
            budget.check(name, since, len(frames), end, video.duration)
            results = {key: wait(future) for key, future in coming.results.items()}
            frames.append(clock.frame(coming.frame.seconds))
            for run in runs:
                found = results[run.key].above(run.conf)
                run.follower.take(len(frames) - 1, found, coming.frame.image)
            end = coming.frame.seconds + step
    # A frame is shown until the next: the last one until the end.
    length = max(frames[-1], clock.frame(end) - 1)
    footage = Footage(clock, np.array(frames, np.int64), length, end)
    return [run.follower.done(footage) for run in runs]


@dataclass(frozen=True)
class _Coming:
    """A frame whose results are on their way."""

    frame: Frame
    results: Mapping[Key, Future[Result]]

    def cancel(self) -> None:
        for future in self.results.values():
            future.cancel()


def _queued(video: Video, clock: Clock, runs: Sequence[Run]) -> Generator[_Coming]:
    """The frames of ``video`` that Label Studio shows, each in the queues of its models."""
    lowest: dict[Key, Run] = {}
    for run in sorted(runs, key=lambda run: -run.conf):
        lowest[run.key] = run
    last = 0

    def wanted(seconds: float) -> bool:
        return clock.frame(seconds) > last

    for frame in video.frames(wanted):
        last = clock.frame(frame.seconds)
        results: dict[Key, Future[Result]] = {}
        coming = _Coming(frame, results)
        try:
            for key, run in lowest.items():
                batcher = run.model.batcher
                prepared = batcher.prepare(frame.image, run.model.entry.imgsz)
                results[key] = batcher.submit(prepared, run.conf, run.iou)
        except BaseException:
            coming.cancel()
            raise
        yield coming


def _ahead(items: Generator[_Coming], most: int) -> Generator[_Coming]:
    """``items``, made in a thread of their own, at most ``most`` before they are asked for. What
    nobody asks for any longer is cancelled."""
    run = contextvars.copy_context().run  # with the request's context, which the log names
    with ThreadPoolExecutor(1, "video") as pool:

        def make() -> Future[_Coming | None]:
            return pool.submit(lambda: run(lambda: next(items, None)))

        coming = deque(make() for _ in range(most))
        try:
            while (item := coming.popleft().result()) is not None:
                coming.append(make())
                yield item
                del item
        finally:
            for job in coming:
                if not job.cancel():
                    with contextlib.suppress(Exception):
                        if (made := job.result()) is not None:
                            made.cancel()
