"""Predictions drawn on pictures: for `ls-yolo predict --save`, and for DEBUG_PLOT."""

from __future__ import annotations

import base64
import colorsys
import contextlib
import itertools
import logging
import math
import queue
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo import files
from ls_yolo.controls.outline import outlines
from ls_yolo.results import Image, Mask

log = logging.getLogger(__name__)

Place = Sequence[Sequence[float]] | npt.NDArray[np.float64]
"""Points, each x and y."""


@dataclass(frozen=True)
class Row:
    """What is drawn of an object, or of the image as a whole where there is no place.

    score: 0 to 1; None where there is none. outlines: closed lines, in pixels of the picture.
    points: single ones.
    """

    label: str
    score: float | None
    outlines: Sequence[Place] = ()
    points: Place = ()

    def scaled(self, width: float, height: float) -> Row:
        """With all places as many times as wide and high."""
        outlines = [np.asarray(line) * (width, height) for line in self.outlines]
        return replace(
            self, outlines=outlines, points=np.reshape(self.points, (-1, 2)) * (width, height)
        )


Region = Mapping[str, Any]
"""As Label Studio stores it in the ``result`` of a prediction."""

KEPT = 500
"""Pictures that DEBUG_PLOT keeps; the oldest go first."""
LONGEST = 1600
"""The longer side of such a picture at most, in pixels: 500 of them take some 200 MB."""
WAITING = 8
"""Pictures that wait to be drawn; they are in memory, so what comes beyond is left out."""


def drawn(image: Image, rows: Sequence[Row], *, named: bool = True) -> bytes:
    """``image`` with ``rows`` on it, as a JPEG; ``named``: with their labels and scores."""
    picture = image.copy()
    width = math.ceil(max(picture.shape[:2]) / 400)
    scale = max(0.5, max(picture.shape[:2]) / 1600)
    stroke = max(1, round(1.5 * scale))  # letters of thicker ones run together
    beside = 0  # how far down what is said of the image as a whole goes
    for row in rows:
        colour = colour_of(row.label)
        # The whole numbers are edges of pixels, and OpenCV's are their centres.
        outlines = [np.round(np.asarray(line)).astype(np.int32) for line in row.outlines]
        points: npt.NDArray[Any] = np.round(np.reshape(row.points, (-1, 2))).astype(np.int32)
        cv2.polylines(picture, outlines, True, colour, width)
        for x, y in points.tolist():
            cv2.circle(picture, (x, y), 2 * width, colour, cv2.FILLED)
        if not named:
            continue
        # OpenCV draws no other letters than these.
        text = row.label.encode("ascii", "replace").decode()
        text += "" if row.score is None else f" {row.score:.2f}"
        (size, height), under = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
        places = np.concatenate([*outlines, points])
        left, top = places.min(axis=0).tolist() if len(places) else (0, beside)
        bottom = max(top, height + under) if len(places) else beside + height + under
        beside = beside if len(places) else bottom
        left = max(min(left, picture.shape[1] - size), 0)  # the score is at the end
        cv2.rectangle(
            picture, (left, bottom - height - under), (left + size, bottom), colour, cv2.FILLED
        )
        place = (left, bottom - under // 2)
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), stroke, cv2.LINE_AA
        )
    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert good
    return bytes(data.tobytes())


def colour_of(label: str) -> tuple[int, int, int]:
    """A light colour (blue, green, red) that is the same for a label in every picture."""
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(label.encode()) % 360 / 360, 0.6, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def rows(regions: Sequence[Region]) -> list[Row]:
    """The regions of a prediction, with their places in parts of the image, 0 to 1. Of a pair, a
    shape and its labels, there is one."""
    beside = {one.get("id"): one for one in regions if one["type"] == "labels"}
    return [
        _row(one, beside.get(one.get("id"), one)["value"])
        for one in regions
        if one["type"] != "labels"
    ]


def _row(region: Region, named: Region) -> Row:
    """``named``: the value that has the labels."""
    kind, value = region["type"], region["value"]
    found = value.get(kind, named.get("labels", kind))
    names = found if isinstance(found, list) else [found]
    label = ", ".join(" / ".join(one) if isinstance(one, list) else str(one) for one in names)
    if kind in ("number", "rating"):
        label = f"{region['from_name']}: {label}"
    shape = Row(label, region.get("score"))
    of = _PLACES.get(kind.removesuffix("labels"))
    return of(region, value, shape) if of else shape


def _rectangle(region: Region, value: Region, shape: Row) -> Row:
    sides = np.array([region["original_width"], region["original_height"]])
    turn = np.radians(value["rotation"])
    across = value["width"] * sides[0] * np.array([np.cos(turn), np.sin(turn)])
    down = value["height"] * sides[1] * np.array([-np.sin(turn), np.cos(turn)])
    corner = np.array([value["x"], value["y"]]) * sides
    corners = np.array([corner, corner + across, corner + across + down, corner + down])
    return replace(shape, outlines=[corners / sides / 100])


def _polygon(_: Region, value: Region, shape: Row) -> Row:
    return replace(shape, outlines=[np.array(value["points"]) / 100])


def _ellipse(region: Region, value: Region, shape: Row) -> Row:
    sides = np.array([region["original_width"], region["original_height"]])
    turn, around = np.radians(value["rotation"]), np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = np.cos(around) * value["radiusX"] * sides[0]
    y = np.sin(around) * value["radiusY"] * sides[1]
    turned = [x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)]
    line = np.stack(turned, axis=1) / sides + (value["x"], value["y"])
    return replace(shape, outlines=[line / 100])


def _keypoint(_: Region, value: Region, shape: Row) -> Row:
    return replace(shape, points=[(value["x"] / 100, value["y"] / 100)])


def _brush(region: Region, value: Region, shape: Row) -> Row:
    # Label Studio's SDK takes a second to import.
    from label_studio_sdk.converter.brush import decode_rle

    sides = region["original_height"], region["original_width"]
    return _mask(decode_rle(value["rle"]).reshape(*sides, 4)[..., 3], shape)


def _bitmask(_: Region, value: Region, shape: Row) -> Row:
    data = base64.b64decode(value["imageDataURL"].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None
    return _mask(picture[..., 3], shape)


def _mask(pixels: npt.NDArray[Any], shape: Row) -> Row:
    height, width = pixels.shape
    found = outlines(Mask(0, 0, pixels > 0))
    return replace(shape, outlines=[line / (width, height) for line in found])


_PLACES: Mapping[str, Callable[[Region, Region, Row], Row]] = {
    "rectangle": _rectangle,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "keypoint": _keypoint,
    "brush": _brush,
    "bitmask": _bitmask,
}


def picture(
    image: Image, shown: Sequence[Row], longest: int = LONGEST, *, named: bool = True
) -> bytes:
    """``image`` with what is ``shown`` on it, in places as `rows` has them, as a JPEG whose longer
    side is at most ``longest`` pixels; ``named`` as for `drawn`."""
    height, width = image.shape[:2]
    if max(height, width) > longest:
        factor = longest / max(height, width)
        width, height = max(round(width * factor), 1), max(round(height * factor), 1)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return drawn(image, [one.scaled(width, height) for one in shown], named=named)


class Saver(Protocol):
    """What takes images with their predictions."""

    def save(self, task: object, image: Image, regions: Sequence[Region]) -> None:
        """An image of the task ``task`` and the ``regions`` on it."""


class Plotter:
    """Saves pictures of predictions in ``folder``, in a thread of its own; the newest ``kept``
    stay. What fails is logged, once as long as it fails."""

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        self._folder = folder
        self._kept = kept
        self._failed = False
        self._numbers = itertools.count()
        self._jobs: queue.Queue[tuple[str, Image, Sequence[Region]]] = queue.Queue(WAITING)
        threading.Thread(target=self._run, name="plot", daemon=True).start()

    def save(self, task: object, image: Image, regions: Sequence[Region]) -> None:
        """Has a picture of the task ``task`` drawn soon, with the ``regions`` of its prediction.

        It is left out where too many wait.
        """
        number = str(task) if isinstance(task, int) else "none"
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{next(self._numbers):06}-task-{number}.jpg"
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait((name, image, regions))

    def wait(self) -> None:
        """Returns once nothing waits any longer."""
        self._jobs.join()

    def _run(self) -> None:
        while True:
            name, image, regions = self._jobs.get()
            try:
                self._write(name, image, regions)
                self._failed = False
            except Exception as error:  # it is for people who look for something else
                if not self._failed:
                    log.warning("DEBUG_PLOT: no picture in %s: %s", self._folder, error)
                self._failed = True
            finally:
                del image
                self._jobs.task_done()

    def _write(self, name: str, image: Image, regions: Sequence[Region]) -> None:
        data = picture(image, rows(regions))
        self._folder.mkdir(parents=True, exist_ok=True)
        files.write(self._folder / name, data)
        for old in sorted(self._folder.glob("*-task-*.jpg"))[: -self._kept]:
            old.unlink(missing_ok=True)
