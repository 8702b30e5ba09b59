"""Answers to what a person draws with a smart tool: the object that is meant, as a region."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ls_yolo import controls, metrics
from ls_yolo.controls.base import Target
from ls_yolo.engines.base import Embedding
from ls_yolo.images.limits import MediaError
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Shown
from ls_yolo.results import Classes, Image, Objects
from ls_yolo.serving import interactive
from ls_yolo.serving.batcher import Released
from ls_yolo.serving.embeddings import Embeddings
from ls_yolo.serving.interactive import Prompts
from ls_yolo.serving.planning import ControlBinding, Plan, SamBinding
from ls_yolo.serving.predictor import ClientGone, wait
from ls_yolo.serving.reading import ImageReader

log = logging.getLogger(__name__)

LOWEST = 0.05
"""The lowest score of what may be meant, 0 to 1: that something is there, the person says."""
KEPT_FOR = 120.0
"""So many seconds what is known of an image is kept for the next click on it."""
KEPT_RESULTS, KEPT_IMAGES = 16, 2
"""Of how many images the results and the pixels are kept."""
LARGEST_KEPT = 64 * 1024 * 1024
"""Pixels of more bytes are not kept."""
TURNS = 1000
"""Of how many images it is known which request is the last."""

_T = TypeVar("_T")


class Recent(Generic[_T]):
    """The last ``most`` values, each for ``KEPT_FOR`` seconds. For any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[float, _T]] = OrderedDict()

    def get(self, key: Hashable) -> _T | None:
        now = time.monotonic()
        with self._lock:
            while self._values and next(iter(self._values.values()))[0] < now - KEPT_FOR:
                self._values.popitem(last=False)
            found = self._values.get(key)
        return found and found[1]

    def put(self, key: Hashable, value: _T) -> None:
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = time.monotonic(), value
            while len(self._values) > self._most:
                self._values.popitem(last=False)


class Clicks:
    """Answers requests of smart tools with the project's own models; before all that waits for
    them. A request that is overtaken by the next one on the same image is dropped.

    Where a SAM is connected too, it answers as soon as it has embedded the image: seconds on a CPU,
    in the background. Until then the own models do, and only what they cannot answer waits."""

    def __init__(self, reader: ImageReader) -> None:
        self._reader = reader
        self._embeddings: Embeddings[tuple[str, Embedding]] = Embeddings()
        self._images: Recent[tuple[Image, tuple[int, int]]] = Recent(KEPT_IMAGES)
        self._results: Recent[tuple[Objects, tuple[int, int]]] = Recent(KEPT_RESULTS)
        self._turns: OrderedDict[Hashable, tuple[object, frozenset[str]]] = OrderedDict()
        self._lock = threading.Lock()

    def answer(
        self,
        task: Mapping[str, Any],
        plan: Plan,
        drawn: Prompts,
        gone: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """The prediction for ``drawn`` on ``task``: one object, or none.

        The first control that draws the chosen label answers, other than a smart tool where there
        is one; for clicks one with outlines before others, unless a SAM draws them.

        One whose image cannot be had has an ``error``, as `Predictor.predict` gives it.

        Raises:
            StudioError: Label Studio cannot be asked for the image.
            Released: a model was replaced since ``plan`` was made; make it anew.
            ModelUnavailable: a SAM, which alone could answer, cannot be loaded.
            QueueFull: too many images wait for a SAM, which alone could answer.
            ClientGone: ``gone`` said so.
        """
        overtaken = self._turn(str(task.get("id")), drawn)
        version = plan.version
        try:
            found, version = self._found(task, plan, drawn, lambda: gone() or overtaken())
            if found:
                score = max((one["score"] for one in found if "score" in one), default=0.0)
                return {"result": found, "score": score, "model_version": version}
        except ClientGone:
            if not overtaken():
                raise
        except MediaError as error:
            metrics.count_error(error)
            log.warning("task %s: a click has no answer: %s", task.get("id", "?"), error)
            return {"result": [], "score": None, "model_version": plan.version, "error": str(error)}
        return {"result": [], "score": 0.0, "model_version": plan.version}

    def _turn(self, task: str, drawn: Prompts) -> Callable[[], bool]:
        """Whether a request came after this one that has all of its prompts: the next click on the
        same object. Another person's, or one on another object, overtakes nothing."""
        key, turn = (task, drawn.to_name, drawn.item_index, drawn.label), object()
        with self._lock:
            self._turns.pop(key, None)
            self._turns[key] = turn, drawn.ids
            while len(self._turns) > TURNS:
                self._turns.popitem(last=False)

        def overtaken() -> bool:
            last, ids = self._turns.get(key, (turn, frozenset()))
            return last is not turn and bool(drawn.ids) and drawn.ids <= ids

        return overtaken

    def _found(
        self, task: Mapping[str, Any], plan: Plan, drawn: Prompts, gone: Callable[[], bool]
    ) -> tuple[list[controls.Region], str]:
        """The regions of the object that is meant, and the version of what has found it."""
        own = list(_asked(task, plan, drawn))
        pointed = next(_pointed(task, plan, drawn), None)
        if pointed is None:
            return self._first(task, own, drawn, gone), plan.version
        sam, image = pointed
        if image.fault:
            raise MediaError(image.fault)
        key = task.get("id"), image.url, sam.version

        def embed() -> tuple[str, Embedding]:
            return self._embed(task, sam, image)

        made = self._embeddings.get(key)
        if made is None:
            # Of the same control, so that a later answer of the SAM takes the place of this one.
            at = image.control.from_name
            same = [one for one in own if one[1].control.from_name == at]
            if found := self._first(task, same, drawn, gone):
                self._embeddings.start(key, embed)
                return found, plan.version
            with self._embeddings.awaited(key, embed) as future:
                made = wait(future, gone)
        found = self._outline(sam, image, drawn, made)
        return (
            (found, sam.version) if found else (self._first(task, own, drawn, gone), plan.version)
        )

    def _first(
        self,
        task: Mapping[str, Any],
        asked: Sequence[tuple[ControlBinding, Shown]],
        drawn: Prompts,
        gone: Callable[[], bool],
    ) -> list[controls.Region]:
        """What the first of the models finds that finds something."""
        for binding, image in asked:
            if image.fault:
                raise MediaError(image.fault)
            if found := self._find(task, binding, image, drawn, gone):
                return found
        return []

    def _embed(
        self, task: Mapping[str, Any], sam: SamBinding, image: Shown
    ) -> tuple[str, Embedding]:
        """The embedding of an image, and the version of the SAM that has made it; in the thread of
        embeddings, which loads the SAM too if need be."""
        model = sam.load()
        pixels, _ = self._pixels(task, image)
        prepared = model.segmenter.prepare(pixels)
        del pixels  # several times as large as what is needed from here on
        with metrics.stage("embed"):
            made = model.segmenter.embed(prepared)
        metrics.IMAGES.labels(model.entry.name).inc()
        return model.version, made

    def _outline(
        self, sam: SamBinding, image: Shown, drawn: Prompts, made: tuple[str, Embedding]
    ) -> list[controls.Region]:
        """The region of what a SAM says is meant."""
        version, embedding = made
        model = sam.load()
        if not version == sam.version == model.version:
            raise Released("the SAM was replaced")  # the next plan asks for the new one
        size = embedding.width, embedding.height
        there = interactive.inside(interactive.in_pixels(drawn, *size), *size)
        kind = controls.of(image.control)
        if kind is None or not interactive.points_at_something(there):
            return []
        spots = [(point.x, point.y, point.positive) for point in there.points]
        with metrics.stage("prompt"):
            result = model.segmenter.outline(embedding, spots, there.box)
        with metrics.stage("encode"):
            label = {0: drawn.label}
            return _placed(kind.encode(Target(image.control, label, label, *size), result), image)

    def _find(
        self,
        task: Mapping[str, Any],
        binding: ControlBinding,
        image: Shown,
        drawn: Prompts,
        gone: Callable[[], bool],
    ) -> list[controls.Region]:
        with binding.model.batcher.reserve():
            look = self._whole if drawn.box is None else self._inside
            result, size = look(task, binding, image, drawn, gone)
        labels = binding.labels_of(image.control)
        classes = [index for index, label in labels.items() if label == drawn.label]
        index = interactive.meant(result, interactive.in_pixels(drawn, *size), classes)
        kind = controls.of(image.control)
        if index is None or kind is None:
            return []
        with metrics.stage("encode"):
            target = Target(image.control, labels, binding.model.names, *size, boxes=binding.boxes)
            found = kind.encode(target, result.take(np.array([index], np.int64)))
        return _placed(found, image)

    def _whole(
        self,
        task: Mapping[str, Any],
        binding: ControlBinding,
        image: Shown,
        drawn: Prompts,
        gone: Callable[[], bool],
    ) -> tuple[Objects, tuple[int, int]]:
        """What the model says of the whole image; kept for the next click on it."""
        key = task.get("id"), image.url, binding.model.version
        if known := self._results.get(key):
            return known
        pixels, size = self._pixels(task, image, binding.model.imgsz)
        found = self._ask(binding, pixels, gone, size), size
        self._results.put(key, found)
        return found

    def _inside(
        self,
        task: Mapping[str, Any],
        binding: ControlBinding,
        image: Shown,
        drawn: Prompts,
        gone: Callable[[], bool],
    ) -> tuple[Objects, tuple[int, int]]:
        """What the model says of the drawn box and a margin around it, at full resolution."""
        pixels, size = self._pixels(task, image)
        box = interactive.in_pixels(drawn, *size).box
        assert box is not None
        left, top, right, bottom = interactive.crop(box, *size)
        found = self._ask(binding, pixels[top:bottom, left:right], gone)
        return found.moved(left, top), size

    def _pixels(
        self, task: Mapping[str, Any], image: Shown, longest: int | None = None
    ) -> tuple[Image, tuple[int, int]]:
        """The image, in full if it is at hand or ``longest`` is None, else about that large; and
        its full width and height in pixels."""
        key = task.get("id"), image.url
        if known := self._images.get(key):
            return known
        with (
            self._reader.fetched(task, image.url) as file,
            self._reader.decoded(file, longest, soon=True) as found,
        ):
            pixels, (width, height) = found
            if pixels.shape[:2] == (height, width) and pixels.nbytes <= LARGEST_KEPT:
                self._images.put(key, found)
            return found

    @staticmethod
    def _ask(
        binding: ControlBinding,
        pixels: Image,
        gone: Callable[[], bool],
        size: tuple[int, int] | None = None,
    ) -> Objects:
        """What the model says of ``pixels``, or of an image of ``size`` of which they are a smaller
        copy."""
        batcher, entry = binding.model.batcher, binding.model.entry
        prepared = batcher.prepare(pixels, entry.imgsz, size)
        future = batcher.submit(prepared, LOWEST, entry.iou, urgent=True)
        try:
            found = wait(future, gone)
        except ClientGone:
            future.cancel()
            raise
        assert not isinstance(found, Classes)  # `_asked` took no such model
        return found


def _asked(
    task: Mapping[str, Any], plan: Plan, drawn: Prompts
) -> Iterator[tuple[ControlBinding, Shown]]:
    """What may answer, the best first."""
    found = [
        (binding, image)
        for binding in plan.bindings
        if binding.model.task != "classify" and not binding.control.of_video
        for image in label_config.shown(binding.control, task.get("data"))
        if (image.control.to_name, image.index) == (drawn.to_name, drawn.item_index)
        and drawn.label in binding.labels_of(image.control).values()
        and not _of_the_whole(image)
    ]

    def order(one: tuple[ControlBinding, Shown]) -> tuple[bool, bool]:
        binding, image = one
        outlines = binding.model.task in ("segment", "semantic")
        return image.control.flag("smart"), drawn.box is None and not outlines

    yield from sorted(found, key=order)


def _pointed(
    task: Mapping[str, Any], plan: Plan, drawn: Prompts
) -> Iterator[tuple[SamBinding, Shown]]:
    """Where a SAM may answer, the best first: a control that is no smart tool."""
    if not interactive.points_at_something(drawn):
        return
    found = [
        (binding, image)
        for binding in plan.sams
        for image in label_config.shown(binding.control, task.get("data"))
        if (image.control.to_name, image.index) == (drawn.to_name, drawn.item_index)
        and any(drawn.label == label.value for label in image.control.labels)
    ]
    yield from sorted(found, key=lambda one: one[1].control.flag("smart"))


def _placed(regions: list[controls.Region], image: Shown) -> list[controls.Region]:
    """``regions``, each with the number of its image where there are several."""
    if image.index is None:
        return regions
    return [{**region, "item_index": image.index} for region in regions]


def _of_the_whole(image: Shown) -> bool:
    kind = controls.of(image.control)
    return kind is None or kind.join is not None
