"""Boxes drawn on pictures: for `ls-yolo predict --save`, and for DEBUG_PLOT."""

from __future__ import annotations

import colorsys
import contextlib
import itertools
import logging
import queue
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from ls_yolo import files
from ls_yolo.results import Image

log = logging.getLogger(__name__)

Row = tuple[str, float, Sequence[float]]
"""What is drawn: label, score, and left, top, right, bottom in pixels of the picture."""
Region = Mapping[str, Any]
"""As Label Studio stores it in the ``result`` of a prediction."""

KEPT = 500
"""Pictures that DEBUG_PLOT keeps; the oldest go first."""
LONGEST = 1600
"""The longer side of such a picture at most, in pixels: 500 of them take some 200 MB."""
WAITING = 8
"""Pictures that wait to be drawn; they are in memory, so what comes beyond is left out."""


def drawn(image: Image, rows: Sequence[Row]) -> bytes:
    """``image`` with ``rows`` on it, as a JPEG."""
    picture = image.copy()
    width = max(1, round(max(picture.shape[:2]) / 400))
    scale = max(0.4, max(picture.shape[:2]) / 1600)
    for label, score, box in rows:
        left, top, right, bottom = (round(edge) for edge in box)
        colour = _colour(label)
        cv2.rectangle(picture, (left, top), (right, bottom), colour, width)
        # OpenCV draws no other letters than these.
        text = label.encode("ascii", "replace").decode() + f" {score:.2f}"
        (size, height), under = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, width)
        bottom_of_text = max(top, height + under)
        cv2.rectangle(
            picture,
            (left, bottom_of_text - height - under),
            (left + size, bottom_of_text),
            colour,
            cv2.FILLED,
        )
        place = (left, bottom_of_text - under // 2)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), width)
    good, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
    assert good
    return bytes(data.tobytes())


def _colour(label: str) -> tuple[int, int, int]:
    """A light colour (blue, green, red) that is the same for a label in every picture."""
    red, green, blue = colorsys.hsv_to_rgb(zlib.crc32(label.encode()) % 360 / 360, 0.6, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def row(region: Region) -> Row:
    """A region of a prediction, with its box in parts of the image, 0 to 1."""
    value = region["value"]
    left, top = value["x"] / 100, value["y"] / 100
    box = left, top, left + value["width"] / 100, top + value["height"] / 100
    return value["rectanglelabels"][0], region["score"], box


class Plotter:
    """Saves pictures with boxes in ``folder``, in a thread of its own; the newest ``kept`` stay.
    What fails is logged, once as long as it fails."""

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
        height, width = image.shape[:2]
        if max(height, width) > LONGEST:
            factor = LONGEST / max(height, width)
            width, height = max(round(width * factor), 1), max(round(height * factor), 1)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        sides = width, height, width, height
        data = drawn(
            image,
            [
                (label, score, [edge * side for edge, side in zip(box, sides, strict=True)])
                for label, score, box in map(row, regions)
            ],
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        files.write(self._folder / name, data)
        for old in sorted(self._folder.glob("*-task-*.jpg"))[: -self._kept]:
            old.unlink(missing_ok=True)
