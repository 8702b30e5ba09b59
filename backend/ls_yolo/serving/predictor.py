"""Tasks in, predictions out."""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ls_yolo import metrics
from ls_yolo.controls import Region
from ls_yolo.engines.base import Prepared
from ls_yolo.errors import RequestError
from ls_yolo.images import source
from ls_yolo.images.likeness import perceptual_hash
from ls_yolo.images.limits import MediaError
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.label_config import LabelConfigError, Shown
from ls_yolo.results import Classes, Image, Objects, Result
from ls_yolo.serving import debug_plot, drawing, planning, scores, slicing, video
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.loading import Model
from ls_yolo.serving.planning import ControlBinding, Plan
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import Registry

log = logging.getLogger(__name__)

_T = TypeVar("_T")

FETCHED = 16
"""Images that are fetched from Label Studio at a time: slow ones wait beside those at hand."""
FROM_WEB = 32
"""Images that are fetched from the web at a time, whose servers may be slower than all others."""
FROM_WEB_EACH = 8
"""How many of them are of one request: who names slow servers leaves some to others."""
SLICES = 4
"""Slices of an image that wait for a model at a time."""
LOOK_UP = 0.2
"""How often, in seconds, a request that waits looks whether its client is still there."""


class PredictionError(RequestError):
    """No task of a request could be predicted, and not for the tasks' own fault."""


class ClientGone(RequestError):
    """Nobody waits for the answer any longer."""

    status = 499


class Predictor:
    """Predicts tasks with the models of a registry.

    ``reader`` has their images. ``plotter`` saves what was predicted as pictures.
    ``video_seconds``: how long the videos of a request may take together. ``score``: how that of a
    prediction is made, see `scores`.
    """

    def __init__(
        self,
        registry: Registry,
        reader: ImageReader,
        plotter: debug_plot.Saver | None = None,
        video_seconds: float = video.SECONDS,
        score: str = scores.DEFAULT,
    ) -> None:
        self._score = score
        self._video_seconds = video_seconds
        self.registry = registry
        self.reader = reader
        self._plotter = plotter
        # A slow network must not keep images on the disk waiting, nor let more be decoded at once.
        self._pools: dict[source.Origin, ThreadPoolExecutor] = {
            "local": ThreadPoolExecutor(reader.threads, "decode"),
            "studio": ThreadPoolExecutor(FETCHED, "fetch"),
            "web": ThreadPoolExecutor(FROM_WEB, "web"),
        }

    def plan(self, config: str, url: Sequence[str], extra_params: Sequence[str]) -> Plan:
        """See `planning.plan`."""
        return planning.plan(self.registry, config, url, extra_params)

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        plan: Plan,
        gone: Callable[[], bool] = lambda: False,
        likeness: bool = False,
    ) -> list[dict[str, Any]]:
        """One prediction a task, in order.

        Images are read and decoded in threads of their own, a few ahead of the models. A task that
        fails has an empty result, a score of None and an ``error``; in Label Studio, where an image
        with nothing on it has the score 1, that tells the two apart. ``gone`` says whether nobody
        waits for the answer any longer. With ``likeness`` a prediction has one too: the hash of
        the task's first image, 16 hexadecimal digits; see `ls_yolo.images.likeness`.

        Raises:
            LabelConfigError: there is nothing to draw yet; nothing should be stored, so that all
                tasks are predicted once there is.
            PredictionError: every task failed, and not for its own fault (the engine, Label Studio,
                the token), so that nothing should be stored.
            QueueFull: too much waits for a model already; nothing was done.
            Released: a model was replaced since ``plan`` was made; make it anew.
            ClientGone: ``gone`` said so.
        """
        if plan.waiting:
            raise LabelConfigError(f"nothing to draw yet: {plan.waiting}")
        budget = video.Budget(self._video_seconds)
        work = [_work(task, plan) for task in tasks]
        batchers = {binding.model.batcher for binding in plan.bindings}
        most = {batcher: max((w.places(batcher) for w in work), default=0) for batcher in batchers}
        # As many as keep threads and models busy; each is at most one image for each run.
        ahead = max(self.reader.threads, *(batcher.batch_size for batcher in batchers), 1) * 2
        ahead = min(ahead, *(batcher.queue_size // (most[batcher] or 1) for batcher in batchers))
        if any(run.slice for w in work for run in w.runs):
            ahead = min(ahead, 2)  # whole images are kept until their slices are predicted
        with contextlib.ExitStack() as held:
            for batcher in batchers:
                places = min(ahead or 1, len(tasks)) * most[batcher]
                # Videos come one after the other.
                places += max(
                    (video.places(batcher) for w in work if w.watches(batcher)), default=0
                )
                held.enter_context(batcher.reserve(min(places, batcher.queue_size)))
            return self._predict(work, plan, ahead or 1, gone, budget, likeness)

    def _predict(
        self,
        tasks: Sequence[_Work],
        plan: Plan,
        ahead: int,
        gone: Callable[[], bool],
        budget: video.Budget,
        likeness: bool,
    ) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        broken, why = 0, ""
        under_way: deque[Future[_Started]] = deque()
        waiting = deque(tasks)
        of_web: list[Future[_Started]] = []
        try:
            for task in tasks:
                while waiting and len(under_way) < ahead:
                    place = self._place(waiting[0])
                    of_web = [job for job in of_web if not job.done()]
                    if place == "web" and len(of_web) >= FROM_WEB_EACH:
                        break
                    # With the context of the request, which the log names.
                    run = contextvars.copy_context().run
                    job = self._pools[place].submit(run, self._start, waiting.popleft(), likeness)
                    under_way.append(job)
                    if place == "web":
                        of_web.append(job)
                try:
                    started = wait(under_way[0], gone)
                    regions = _regions(task, started, gone)
                    regions += video.regions(
                        task.task, task.videos, self.reader, budget, lambda f: wait(f, gone)
                    )
                    self._plot(task, started, regions)
                    answers.append(self._prediction(regions, plan.version) | started.more)
                    del started  # with its images, where they are kept
                    continue
                except (ClientGone, QueueFull, Released):
                    raise
                except MediaError as error:
                    why = self._failed(task.task, error, str(error))
                except (StudioError, LabelConfigError) as error:
                    broken, why = broken + 1, self._failed(task.task, error, str(error))
                except Exception as error:
                    why = f"the engine failed: {type(error).__name__}"
                    broken, why = broken + 1, self._failed(task.task, error, why, trace=True)
                finally:
                    _cancel(under_way.popleft())  # what a failed task has left
                answers.append(
                    {"result": [], "score": None, "model_version": plan.version, "error": why}
                )
        finally:
            for job in under_way:
                _cancel(job)
        if tasks and broken == len(tasks):
            raise PredictionError(f"no task could be predicted: {why}; the backend's log says more")
        return answers

    def _prediction(self, regions: list[Region], version: str) -> dict[str, Any]:
        score = scores.score(regions, self._score)
        return {"result": regions, "score": score, "model_version": version}

    def _plot(self, work: _Work, started: _Started, regions: Sequence[Region]) -> None:
        if self._plotter is None:
            return
        for url, image in started.images.items():
            here = {(s.control.to_name, s.index) for _, s in work.shown if s.url == url}
            shown = [r for r in regions if (r["to_name"], r.get("item_index")) in here]
            self._plotter.save(work.task.get("id"), image, shown)

    @staticmethod
    def _failed(task: Mapping[str, Any], error: Exception, why: str, trace: bool = False) -> str:
        metrics.count_error(error)
        log.warning(
            "task %s: empty prediction: %s",
            task.get("id", "?"),
            why,
            exc_info=trace,
            extra={"fields": {"kind": metrics.kind_of(error)}},
        )
        return why

    def _start(self, work: _Work, likeness: bool) -> _Started:
        """Reads, decodes and queues a task's images; for the threads beside the models."""
        if work.fault:
            raise MediaError(work.fault)
        for batcher in {run.model.batcher for run in work.runs}:
            if work.places(batcher) > batcher.queue_size:
                raise MediaError(
                    f"found {work.places(batcher)} images, expected at most {batcher.queue_size}: "
                    "more in a task do not fit into the queue of a model",
                    "too_large",
                )
        started = _Started()
        ready: list[tuple[_Run, Prepared]] = []
        for url, of_url in itertools.groupby(work.runs, key=lambda run: run.url):
            wanted = list(of_url)
            with contextlib.ExitStack() as coming:
                file = coming.enter_context(self.reader.fetched(work.task, url))
                for run in wanted:
                    coming.enter_context(run.model.batcher.pending())
                with self.reader.decoded(file, _longest(wanted, file.header.size)) as (image, size):
                    if self._plotter is not None:
                        started.images[url] = image
                    started.sizes[url] = size
                    if likeness and not started.more:
                        started.more["likeness"] = f"{perceptual_hash(image):016x}"
                    sliced = {run.key: parts for run in wanted if (parts := _parts(run, size))}
                    ready += [
                        (run, run.model.batcher.prepare(image, run.model.entry.imgsz, size))
                        for run in wanted
                        if run.key not in sliced
                    ]
                for run in wanted:
                    if run.key in sliced:
                        started.sliced[run.key] = _Sliced(image, run, sliced[run.key])
                del file, image
        try:
            for run, prepared in ready:
                started.results[run.key] = run.model.batcher.submit(
                    prepared, run.conf, run.model.entry.iou
                )
        except BaseException:
            started.cancel()
            raise
        return started

    def _place(self, work: _Work) -> source.Origin:
        """Where the images of a task come from: the slowest place of them."""
        places = {self.reader.origin(run.url) for run in work.runs}
        return "web" if "web" in places else "studio" if "studio" in places else "local"


@dataclass(frozen=True)
class _Run:
    """A model on the image at an address, at the lowest threshold asked for; on slices of ``slice``
    pixels beside the whole, if that is asked for."""

    url: str
    model: Model
    conf: float
    slice: int | None = None

    @property
    def key(self) -> drawing.Key:
        return self.url, self.model.version, self.slice

    @property
    def places(self) -> int:
        """How many images wait for the model at a time."""
        return SLICES if self.slice else 1


@dataclass(frozen=True)
class _Work:
    """A task: what is drawn on which of its images, and the runs for it, sorted by address; and
    what is drawn on which of its videos. ``fault``: why it cannot be predicted, else empty."""

    task: Mapping[str, Any]
    shown: Sequence[tuple[ControlBinding, Shown]]
    runs: Sequence[_Run]
    videos: Sequence[tuple[ControlBinding, Shown]] = ()
    fault: str = ""

    def watches(self, batcher: object) -> bool:
        """Whether a video is for ``batcher``."""
        return any(binding.model.batcher is batcher for binding, _ in self.videos)

    def places(self, batcher: object) -> int:
        """How many images wait for ``batcher`` at a time."""
        return sum(run.places for run in self.runs if run.model.batcher is batcher)


@dataclass(frozen=True)
class _Sliced:
    """An image that is predicted in slices, once it is its turn: in the thread of the request,
    since it takes long, and other requests wait for those that read images."""

    image: Image
    run: _Run
    parts: Sequence[slicing.Slice]


@dataclass
class _Started:
    """A task whose images are queued: width and height by address, results by what was run, what is
    still to be run on slices, the images by address where they are kept for pictures, and what more
    a prediction has."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    results: dict[drawing.Key, Future[Result]] = field(default_factory=dict)
    sliced: dict[drawing.Key, _Sliced] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)

    def cancel(self) -> None:
        for future in self.results.values():
            future.cancel()


def _work(task: Mapping[str, Any], plan: Plan) -> _Work:
    """What is to run for a task: each model once on each image."""
    everything: list[tuple[ControlBinding, Shown]] = []
    faults: list[str] = []
    for binding in plan.bindings:
        if binding.control.flag("smartonly"):  # a tool for people
            continue
        images = label_config.shown(binding.control, task.get("data"))
        wrong = [image.fault for image in images if image.fault]
        if wrong and len(wrong) == len(images):
            faults += wrong[:1]  # what a task need not have, where another control has its own
        else:
            everything += [(binding, image) for image in images]
    fault = next((image.fault for _, image in everything if image.fault), "")
    if everything and not fault:
        for missing in faults:
            log.warning("task %s: a control is left out: %s", task.get("id", "?"), missing)
    elif faults and not everything:
        fault = faults[0]
    shown = [one for one in everything if not one[0].control.of_video]
    videos = [one for one in everything if one[0].control.of_video]
    found: dict[drawing.Key, _Run] = {}
    for binding, image in shown:
        at = drawing.key(binding, image)
        conf = min(found[at].conf, binding.conf) if at in found else binding.conf
        found[at] = _Run(image.url, binding.model, conf, binding.slice)
    runs = sorted(found.values(), key=lambda run: run.url)
    return _Work(task, shown, runs, videos, fault)


def _regions(work: _Work, started: _Started, gone: Callable[[], bool]) -> list[Region]:
    def result_of(at: drawing.Key) -> Result:
        if at in started.sliced:
            return _in_slices(started.sliced.pop(at), gone)
        return wait(started.results[at], gone)

    return drawing.regions(work.shown, result_of, started.sizes)


def _longest(runs: Sequence[_Run], size: tuple[int, int]) -> int | None:
    """The longer side of an image of ``size`` that is enough for ``runs``, in pixels; None: slices
    need all of them."""
    if any(run.slice for run in runs):
        return None

    def side(run: _Run) -> int:
        imgsz = run.model.imgsz
        # A classifier looks at a square whose side is the shorter one.
        return imgsz * max(size) // min(size) if run.model.task == "classify" else imgsz

    return max(map(side, runs))


def _parts(run: _Run, size: tuple[int, int]) -> list[slicing.Slice]:
    """The slices of an image of ``size`` that ``run`` looks at beside the whole."""
    if not run.slice:
        return []
    parts = slicing.slices(*size, run.slice)
    if len(parts) > slicing.MOST:
        raise MediaError(
            f"found an image of {size[0]} x {size[1]} pixels, which is {len(parts)} slices of "
            f"{run.slice}, expected at most {slicing.MOST}; set a larger slice",
            "too_large",
        )
    return parts


def _in_slices(sliced: _Sliced, gone: Callable[[], bool]) -> Result:
    """What is said of the image as a whole and of its parts: a few wait at a time."""
    run, image = sliced.run, sliced.image
    batcher, entry = run.model.batcher, run.model.entry
    height, width = image.shape[:2]
    waiting: deque[tuple[slicing.Slice, Future[Result]]] = deque()
    found: list[Objects] = []

    def take() -> None:
        (left, top, _, _), future = waiting[0]
        result = wait(future, gone)
        waiting.popleft()
        if not isinstance(result, Classes):
            found.append(slicing.made(result.moved(left, top)))

    try:
        for part in [(0, 0, width, height), *sliced.parts]:
            if len(waiting) == SLICES:
                take()
            left, top, right, bottom = part
            prepared = batcher.prepare(image[top:bottom, left:right], entry.imgsz)
            waiting.append((part, batcher.submit(prepared, run.conf, entry.iou)))
        while waiting:
            take()
    finally:
        for _, future in waiting:
            future.cancel()
    return slicing.merged(found)


def wait(future: Future[_T], gone: Callable[[], bool]) -> _T:
    """The result of ``future``.

    Raises:
        ClientGone: ``gone`` said so before it was there.
        whatever the future has instead.
    """
    while not gone():
        try:
            return future.result(LOOK_UP)
        except TimeoutError:
            if future.done():  # then it is the future's own, or it was done just now
                return future.result()
    raise ClientGone("the client is gone; its request was dropped")


def _cancel(job: Future[_Started]) -> None:
    """Takes back what was not begun, at once or as soon as it is known."""
    if not job.cancel():
        job.add_done_callback(_cancel_started)


def _cancel_started(job: Future[_Started]) -> None:
    if not job.cancelled() and job.exception() is None:
        job.result().cancel()
