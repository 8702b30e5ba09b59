"""Tasks in, predictions out: which models answer a labeling config, and with what."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ls_yolo import controls, metrics
from ls_yolo.controls import Region
from ls_yolo.controls.base import Target
from ls_yolo.engines.base import Prepared
from ls_yolo.errors import RequestError
from ls_yolo.images import decode, limits, source
from ls_yolo.images.limits import MediaError
from ls_yolo.labelstudio import label_config, selection
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.label_config import Control, LabelConfigError, Shown
from ls_yolo.results import Image, Masks, Result
from ls_yolo.serving import debug_plot
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.registry import Model, Registry, join_versions
from ls_yolo.text import some

log = logging.getLogger(__name__)

_T = TypeVar("_T")

FETCHED = 16
"""Images that are fetched from Label Studio at a time: slow ones wait beside those at hand."""
FROM_WEB = 32
"""Images that are fetched from the web at a time, whose servers may be slower than all others."""
FROM_WEB_EACH = 8
"""How many of them are of one request: who names slow servers leaves some to others."""
LOOK_UP = 0.2
"""How often, in seconds, a request that waits looks whether its client is still there."""


class PredictionError(RequestError):
    """No task of a request could be predicted, and not for the tasks' own fault."""


class ClientGone(RequestError):
    """Nobody waits for the answer any longer."""

    status = 499


@dataclass(frozen=True)
class ControlBinding:
    """A control and a model that draws for it: class index to label, and the lowest score.

    ``boxes``: class index to label of the control that takes the boxes of bodies, if any.
    """

    control: Control
    model: Model
    labels: Mapping[int, str]
    conf: float
    boxes: Mapping[int, str] | None = None

    def labels_of(self, control: Control) -> Mapping[int, str]:
        """Class index to label, for ``control`` as a task has it: with labels of the task's own."""
        if not control.own:
            return self.labels
        return _labels(self.model, controls.match(control, self.model.names.values()).labels)


@dataclass(frozen=True)
class Plan:
    """What answers a labeling config. ``unmapped``: control, then label, to the reason.

    ``waiting``: why there is nothing to draw yet, else empty; then ``version`` says it too, which
    Label Studio shows beside the connection.
    """

    bindings: tuple[ControlBinding, ...]
    version: str
    unmapped: Mapping[str, Mapping[str, str]]
    waiting: str = ""


class Predictor:
    """Predicts tasks with the models of a registry.

    ``threads``: images decoded at a time. ``web`` fetches http(s) addresses; None: they are
    refused. ``reduced``: large JPEGs are decoded near the size that the models need. ``plotter``
    saves what was predicted as pictures. ``studio_url``: where ``studio`` finds Label Studio;
    ``public_urls``: where people do.
    """

    def __init__(
        self,
        registry: Registry,
        root: Path,
        studio: source.Fetcher | None,
        studio_url: str,
        threads: int = 4,
        web: source.WebFetcher | None = None,
        reduced: bool = False,
        plotter: debug_plot.Plotter | None = None,
        public_urls: Sequence[str] = (),
    ) -> None:
        self._plotter = plotter
        self._web = web
        self._reduced = reduced
        self._threads = threads
        # A slow network must not keep images on the disk waiting, nor let more be decoded at once.
        self._pools: dict[source.Origin, ThreadPoolExecutor] = {
            "local": ThreadPoolExecutor(threads, "decode"),
            "studio": ThreadPoolExecutor(FETCHED, "fetch"),
            "web": ThreadPoolExecutor(FROM_WEB, "web"),
        }
        self._decoding = threading.BoundedSemaphore(threads)
        self._memory = limits.Memory()
        self.registry = registry
        self._root = root
        self._studio = studio
        self._own = (studio_url, *public_urls)

    def plan(self, config: str, url: Sequence[str], extra_params: Sequence[str]) -> Plan:
        """Which models draw for which controls of the labeling config ``config``.

        Raises:
            LabelConfigError: the configuration cannot be used, or no label maps to any class.
            UnknownModel: a model that was asked for is not there.
        """
        try:
            drawn = controls.drawn(config)
        except controls.NothingToDraw as error:
            for name in selection.choose(url, extra_params, self.registry.default):
                self.registry.get(name)
            return Plan((), f"waiting for something to draw: {error}", {}, str(error))
        bindings, classes, without = [], set(), []
        unmapped: dict[str, Mapping[str, str]] = {}
        for control in drawn:
            connected = self._models(control, url, extra_params)
            models = [model for model in connected if controls.takes(control, model.task)]
            if not models:
                why = controls.no_task(
                    control, [(model.entry.name, model.task) for model in connected]
                )
                if control.model_path:
                    raise LabelConfigError(why)
                unmapped[control.from_name] = {label.value: why for label in control.labels}
                without.append(why)
                continue
            known = [name for model in models for name in model.names.values()]
            mapped = controls.match(control, known)
            classes.update(known)
            boxes, missing = controls.boxes(control, config, mapped.labels)
            if mapped.unmapped or missing:
                unmapped[control.from_name] = {**mapped.unmapped, **missing}
            lowest = control.score_threshold
            bindings += [
                ControlBinding(
                    control,
                    model,
                    _labels(model, mapped.labels),
                    model.entry.conf if lowest is None else lowest,
                    None if boxes is None else _labels(model, boxes),
                )
                for model in models
            ]
        if not bindings:
            raise LabelConfigError("; ".join(without))
        if not any(binding.labels or binding.control.own for binding in bindings):
            wanted = sorted({label.value for control in drawn for label in control.labels})
            raise LabelConfigError(
                f"no label maps to a class: the labels are {some(wanted)}; "
                f"the classes are {some(sorted(classes))}. "
                "Rename one or the other, or give the label predicted_values"
            )
        version = join_versions(binding.model.version for binding in bindings)
        return Plan(tuple(bindings), version, unmapped)

    def _models(
        self, control: Control, url: Sequence[str], extra_params: Sequence[str]
    ) -> list[Model]:
        if control.model_path:
            return [self.registry.by_path(control.model_path)]
        names = selection.choose(url, extra_params, self.registry.default)
        return [self.registry.get(name) for name in names]

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        plan: Plan,
        gone: Callable[[], bool] = lambda: False,
    ) -> list[dict[str, Any]]:
        """One prediction a task, in order.

        Images are read and decoded in threads of their own, a few ahead of the models. A task that
        fails has an empty result, a score of None and an ``error``; in Label Studio, where an image
        with nothing on it has the score 0, that tells the two apart. ``gone`` says whether nobody
        waits for the answer any longer.

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
        work = [_work(task, plan) for task in tasks]
        batchers = {binding.model.batcher for binding in plan.bindings}
        most = {batcher: max((w.places(batcher) for w in work), default=0) for batcher in batchers}
        # As many as keep threads and models busy; each is at most one image for each run.
        ahead = max(self._threads, *(batcher.batch_size for batcher in batchers), 1) * 2
        ahead = min(ahead, *(batcher.queue_size // (most[batcher] or 1) for batcher in batchers))
        with contextlib.ExitStack() as held:
            for batcher in batchers:
                places = min(ahead or 1, len(tasks)) * most[batcher]
                held.enter_context(batcher.reserve(min(places, batcher.queue_size)))
            return self._predict(work, plan, ahead or 1, gone)

    def _predict(
        self,
        tasks: Sequence[_Work],
        plan: Plan,
        ahead: int,
        gone: Callable[[], bool],
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
                    job = self._pools[place].submit(run, self._start, waiting.popleft())
                    under_way.append(job)
                    if place == "web":
                        of_web.append(job)
                try:
                    started = _wait(under_way[0], gone)
                    regions = _regions(task, started, gone)
                    self._plot(task, started, regions)
                    del started  # with its images, where they are kept
                    answers.append(_prediction(regions, plan.version))
                    continue
                except (ClientGone, QueueFull, Released):
                    raise
                except MediaError as error:
                    why = self._failed(task.task, error, str(error))
                except StudioError as error:
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
        log.warning("task %s: empty prediction: %s", task.get("id", "?"), why, exc_info=trace)
        return why

    def _start(self, work: _Work) -> _Started:
        """Reads, decodes and queues a task's images; for the threads beside the models."""
        for _, shown in work.shown:
            if shown.fault:
                raise MediaError(shown.fault)
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
                coming.enter_context(limits.holding())
                with metrics.stage("fetch"):
                    data = self._read(work.task, url)
                header = decode.read_header(data)
                coming.enter_context(self._memory.taken(header.memory))
                for run in wanted:
                    coming.enter_context(run.model.batcher.pending())
                with self._decoding, metrics.stage("decode"):
                    image, size = self._decode(data, header, wanted, work.task)
                    if self._plotter is not None:
                        started.images[url] = image
                    ready += [
                        (run, run.model.batcher.prepare(image, run.model.entry.imgsz, size))
                        for run in wanted
                    ]
                del data, image
        try:
            for run, prepared in ready:
                started.sizes[run.url] = (prepared.width, prepared.height)
                started.boxes[run.url, run.model.version] = run.model.batcher.submit(
                    prepared, run.conf, run.model.entry.iou
                )
        except BaseException:
            started.cancel()
            raise
        return started

    def _place(self, work: _Work) -> source.Origin:
        """Where the images of a task come from: the slowest place of them."""
        places = {source.origin(run.url, self._own) for run in work.runs}
        return "web" if "web" in places else "studio" if "studio" in places else "local"

    def _read(self, task: Mapping[str, Any], url: str) -> bytes:
        return source.read(
            url,
            self._root,
            self._studio,
            self._own,
            task.get("id"),
            self._web,
            task.get("project"),
        )

    def _decode(
        self,
        data: bytes,
        header: decode.Header,
        runs: Sequence[_Run],
        task: Mapping[str, Any],
    ) -> tuple[Image, tuple[int, int]]:
        """The image for ``runs``, and the image's width and height in pixels."""
        name = f"task {task.get('id', '?')}"
        if not self._reduced:
            image = decode.decode(data, header, name)
            return image, (image.shape[1], image.shape[0])
        longest = max(run.model.entry.imgsz or run.model.batcher.imgsz for run in runs)
        return decode.decode_near(data, longest, header, name)


@dataclass(frozen=True)
class _Run:
    """A model on the image at an address, at the lowest threshold asked for."""

    url: str
    model: Model
    conf: float


@dataclass(frozen=True)
class _Work:
    """A task: what is drawn on which of its images, and the runs for it, sorted by address."""

    task: Mapping[str, Any]
    shown: Sequence[tuple[ControlBinding, Shown]]
    runs: Sequence[_Run]

    def places(self, batcher: object) -> int:
        """How many images are for ``batcher``."""
        return sum(run.model.batcher is batcher for run in self.runs)


@dataclass
class _Started:
    """A task whose images are queued: width and height by address, boxes by address and model
    version, and the images by address where they are kept for pictures."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[tuple[str, str], Future[Result]] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)

    def cancel(self) -> None:
        for future in self.boxes.values():
            future.cancel()


def _work(task: Mapping[str, Any], plan: Plan) -> _Work:
    """What is to run for a task: each model once on each image."""
    shown = [
        (binding, image)
        for binding in plan.bindings
        for image in label_config.shown(binding.control, task.get("data"))
    ]
    found: dict[tuple[str, str], _Run] = {}
    for binding, image in shown:
        at = image.url, binding.model.version
        conf = min(found[at].conf, binding.conf) if at in found else binding.conf
        found[at] = _Run(image.url, binding.model, conf)
    return _Work(task, shown, sorted(found.values(), key=lambda run: run.url))


def _labels(model: Model, mapped: Mapping[str, str]) -> dict[int, str]:
    """Class index of ``model`` to label, of class name to label."""
    return {index: mapped[name] for index, name in model.names.items() if name in mapped}


def _regions(work: _Work, started: _Started, gone: Callable[[], bool]) -> list[Region]:
    """What is drawn of a task; of what is said of an image as a whole, one answer a control."""
    drawn: dict[tuple[str, str, int | None], tuple[Control, list[Region]]] = {}
    shared = Counter((image.url, binding.model.version) for binding, image in work.shown)
    results: dict[tuple[str, str], Result] = {}
    for binding, image in work.shown:
        control, at = image.control, (image.url, binding.model.version)
        if at not in results:
            result = _wait(started.boxes[at], gone)
            results[at] = _made_once(result) if shared[at] > 1 else result
        kind = controls.of(control)
        assert kind is not None  # `Predictor.plan` took no other
        index = image.index if kind.join is None or control.flag("peritem") else None
        with metrics.stage("encode"):
            target = Target(
                control,
                binding.labels_of(control),
                binding.model.names,
                *started.sizes[image.url],
                binding.conf,
                binding.boxes,
            )
            _, regions = drawn.setdefault(
                (control.from_name, control.to_name, index), (control, [])
            )
            for region in kind.encode(target, results[at].above(binding.conf)):
                regions.append(region if index is None else {**region, "item_index": index})
    found: list[Region] = []
    for control, regions in drawn.values():
        kind = controls.of(control)
        found += kind.join(control, regions) if kind and kind.join else regions
    return found


def _made_once(result: Result) -> Result:
    """``result`` with masks that are kept once they are made: several controls draw them."""
    if not isinstance(result, Masks):
        return result
    return replace(result, masks=[functools.cache(make) for make in result.masks])


def _wait(future: Future[_T], gone: Callable[[], bool]) -> _T:
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


def _prediction(regions: list[Region], version: str) -> dict[str, Any]:
    scores = [region["score"] for region in regions if "score" in region]
    mean = sum(scores) / len(scores) if scores else 0.0
    return {"result": regions, "score": mean, "model_version": version}
