"""An image that a person tries: predicted as any other, drawn, and kept nowhere."""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo.controls import rectangle
from ls_yolo.errors import RequestError
from ls_yolo.images.limits import MediaError
from ls_yolo.models.sam import SAM
from ls_yolo.results import Boxes, Classes, Image, Keypoints, Mask, Masks, OrientedBoxes, Result
from ls_yolo.serving import described
from ls_yolo.serving.batcher import Released
from ls_yolo.serving.loading import Model
from ls_yolo.serving.predictor import Predictor, wait

MOST_BYTES = 32 * 1024 * 1024
"""The largest image that may be tried, in bytes: cameras' files are below it."""
LONGEST = 1600
"""The longer side of the picture that is shown at most, in pixels."""
COLOURS = 8
"""How many colours the page has for labels."""
TOLERANCE = 0.5
"""How far the outline of a mask may lie from it, in pixels of the picture that is shown."""
POINT_SEEN = 0.25
"""Key points below this score are hidden by something, or outside of the image: ultralytics leaves
them out of its pictures too."""
NAME = "tried on the status page"


class TryError(RequestError):
    """An image cannot be tried; the message says why."""

    status = 400


@dataclass(frozen=True)
class Shape:
    """An object as it is drawn, or what the image as a whole is taken for, without a place.

    path: outlines, as the attribute ``d`` of an SVG path, in pixels of the upright image.
    points: key points, x and y. left, top: of all that, for the label.
    colour: from 0, the same for a label in every picture.
    """

    label: str
    score: float
    path: str = ""
    points: Sequence[tuple[float, float]] = ()
    left: float = 0.0
    top: float = 0.0

    @property
    def colour(self) -> int:
        return zlib.crc32(self.label.encode()) % COLOURS


@dataclass(frozen=True)
class Tried:
    """What a model says of an image.

    width, height: of the upright image, in pixels. picture: it as a JPEG, perhaps smaller.
    found: as `described.describe` has it. sliced: whether predictions of tasks look at slices too,
        which this one does not.
    """

    version: str
    task: str
    width: int
    height: int
    picture: bytes
    shapes: Sequence[Shape]
    found: dict[str, Any]
    sliced: bool = False

    @property
    def source(self) -> str:
        """The picture as a URL that holds it."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.picture).decode()}"

    def as_json(self) -> dict[str, Any]:
        size = {"width": self.width, "height": self.height}
        return {"model": self.version, **size, **self.found}


class Trier:
    """Has the models of ``predictor`` look at an image."""

    def __init__(self, predictor: Predictor) -> None:
        self._registry = predictor.registry
        self._reader = predictor.reader

    @property
    def models(self) -> list[str]:
        """The names of those that can be asked, the default first."""
        rows = self._registry.status()["models"]
        names = [row["name"] for row in rows if row.get("task") != SAM]
        return sorted(names, key=lambda name: name != self._registry.default)

    def __call__(
        self,
        name: str,
        data: bytes,
        conf: float | None = None,
        gone: Callable[[], bool] = lambda: False,
    ) -> Tried:
        """What the model ``name`` says of the image in ``data``.

        conf: what a score must exceed, 0 to 1; None: the model's own threshold.
        gone: whether nobody waits for the answer any longer.

        Raises:
            TryError: it is no image, or too large.
            UnknownModel, NoPredictions, ModelUnavailable, QueueFull, Released, ClientGone: as for
                predictions.
        """
        if len(data) > MOST_BYTES:
            raise TryError(f"the image: larger than {MOST_BYTES >> 20} MiB; try a smaller one")
        try:
            for _ in range(2):  # a model may be replaced just now
                try:
                    return self._try(self._registry.get(name), data, conf, gone)
                except Released:
                    continue
            return self._try(self._registry.get(name), data, conf, gone)
        except MediaError as error:
            raise TryError(f"the image: {error}") from None

    def _try(
        self, model: Model, data: bytes, conf: float | None, gone: Callable[[], bool]
    ) -> Tried:
        entry, batcher = model.entry, model.batcher
        lowest = entry.conf if conf is None else conf
        with batcher.reserve(1):
            with self._reader.given(data, NAME) as file, batcher.pending():
                with self._reader.decoded(file, None) as (image, (width, height)):
                    prepared = batcher.prepare(image, entry.imgsz, (width, height))
                    picture = _jpeg(image)
                del image
            result = wait(batcher.submit(prepared, lowest, entry.iou), gone)
        if isinstance(result, Masks):  # they are described and drawn
            result = replace(result, masks=[functools.cache(make) for make in result.masks])
        found = described.describe(result, model.names, lowest)
        drawn = list(_shapes(result, model, found, max(width, height) / LONGEST))
        sliced = bool(entry.slice)
        return Tried(model.version, model.task, width, height, picture, drawn, found, sliced)


def _jpeg(image: Image) -> bytes:
    height, width = image.shape[:2]
    factor = LONGEST / max(height, width)
    if factor < 1:
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert good
    return bytes(data.tobytes())


def _shapes(result: Result, model: Model, found: dict[str, Any], pixel: float) -> Iterator[Shape]:
    """``pixel``: how large one of the picture that is shown is, in pixels of the image."""
    if isinstance(result, Classes):
        for row in found["classes"]:
            yield Shape(row["label"], row["score"])
        return
    boxes = result.boxes
    rows = zip(boxes.classes.tolist(), boxes.scores.tolist(), boxes.xyxy.tolist(), strict=True)
    for number, (index, score, (left, top, right, bottom)) in enumerate(rows):
        shape = Shape(model.names[index], score, left=left, top=top)
        box = [[(left, top), (right, top), (right, bottom), (left, bottom)]]
        if isinstance(result, Masks):
            yield replace(shape, path=path(contours(result.masks[number](), TOLERANCE * pixel)))
        elif isinstance(result, OrientedBoxes):
            yield replace(shape, path=path([rectangle.corners(result.xywhr[number]).tolist()]))
        elif isinstance(result, Keypoints):
            sure = result.scores[number] > POINT_SEEN
            points = [(float(x), float(y)) for x, y in result.xy[number][sure]]
            yield replace(shape, path=path(box), points=points)
        else:
            assert isinstance(result, Boxes)
            yield replace(shape, path=path(box))


def path(lines: Iterable[Iterable[Iterable[float]]]) -> str:
    """Closed lines as the attribute ``d`` of an SVG path."""
    parts = []
    for line in lines:
        places = "L".join(f"{x:.1f} {y:.1f}" for x, y in line)
        parts.append(f"M{places}Z")
    return "".join(parts)


def contours(mask: Mask, tolerance: float) -> list[npt.NDArray[np.float64]]:
    """The edges of a mask, those of holes too, in pixels of the image: filled by the rule
    ``evenodd`` they are the mask. ``tolerance``: how far they may lie from it, in pixels."""
    found, _ = cv2.findContours(mask.pixels.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # OpenCV goes through the centres of pixels.
    offset = np.array([mask.left, mask.top]) + 0.5
    lines = [cv2.approxPolyDP(line, tolerance, True)[:, 0] + offset for line in found]
    return [line for line in lines if len(line) >= 3]
