"""semantic: the class of each pixel, given as one object for each class that is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.engines.letterbox import Fit, Geometry
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.base import Floats
from ls_yolo.engines.upsample import Grid
from ls_yolo.results import Boxes, Mask, Masks

MARGIN = 1
"""An area may reach so many cells beyond those of its class: to the centre of the next."""


class Semantic:
    """See `engines.tasks.base.Task`.

    An image's output has the shape (classes, rows, columns): a grid that covers the input, with a
    logit for each class, of which the highest wins. With one class there is something where it is
    above 0.

    A class that wins no cell of the grid is not there. The score of one that wins some is the mean
    of its probability over them, its box their bounds.
    """

    way: Fit = "letterbox"

    def __init__(self, network: Network) -> None:
        pass

    def result(
        self, outputs: Sequence[Floats], geometry: Geometry, conf: float, iou: float
    ) -> Masks:
        return _masks(outputs[0].copy(), geometry, conf)

    def results(
        self, outputs: Sequence[Any], geometries: Sequence[Geometry], conf: float, iou: float
    ) -> list[Masks]:
        return [
            _masks(logits.float().cpu().numpy().copy(), geometry, conf)
            for logits, geometry in zip(outputs[0], geometries, strict=True)
        ]


def _masks(logits: Floats, geometry: Geometry, conf: float) -> Masks:
    if len(logits) == 1:  # as if "nothing" were a class of its own, with a logit of 0
        logits = np.concatenate([logits, np.zeros_like(logits)])
        found = _areas(logits, geometry, 1)
    else:
        found = _areas(logits, geometry, len(logits))
    found = sorted((area for area in found if area[0] > conf), key=lambda area: -area[0])
    boxes = Boxes(
        geometry.back(np.array([box for _, _, box in found], np.float32).reshape(-1, 4)),
        np.array([score for score, _, _ in found], np.float32),
        np.array([index for _, index, _ in found], np.int64),
    )
    return Masks(boxes, [partial(mask, index, box, logits, geometry) for _, index, box in found])


def _areas(
    logits: Floats, geometry: Geometry, classes: int
) -> list[tuple[np.float32, int, npt.NDArray[np.float32]]]:
    """Score, class and box, in pixels of the input, of those of the first ``classes`` that are
    there."""
    rows, columns = Grid(geometry, *logits.shape[1:]).covered()
    seen = logits[:, rows, columns]
    best = seen.argmax(axis=0)
    highest = np.take_along_axis(seen, best[None], 0)[0]
    probability = 1 / np.exp(seen - highest).sum(axis=0, dtype=np.float32)
    height, width = geometry.shape
    cell = np.array([width / logits.shape[2], height / logits.shape[1]] * 2, np.float32)
    found = []
    for index in np.unique(best).tolist():
        if index >= classes:
            continue
        down, across = np.nonzero(best == index)
        box = np.array([across.min(), down.min(), across.max() + 1, down.max() + 1], np.float32)
        box += np.array([columns.start, rows.start] * 2, np.float32)
        found.append((probability[down, across].mean(dtype=np.float32), index, box * cell))
    return found


def mask(index: int, box: Floats, logits: Floats, geometry: Geometry) -> Mask:
    """The area of class ``index``, whose cells have the bounds ``box`` in pixels of the input."""
    height, width = geometry.shape
    margin = np.array([width / logits.shape[2], height / logits.shape[1]], np.float32) * MARGIN
    wide = geometry.back(np.concatenate([box[:2] - margin, box[2:] + margin])[None])[0]
    left, top = (math.floor(edge) for edge in wide[:2].tolist())
    right, bottom = (math.ceil(edge) for edge in wide[2:].tolist())
    pixels = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_)
    for tile in Grid(geometry, *logits.shape[1:]).tiles(left, top, right, bottom):
        part = logits[:, tile.down.cells, tile.across.cells].reshape(len(logits), -1)
        # Between cells a logit is between theirs: most classes can win nowhere in a tile.
        able = np.flatnonzero(part.max(axis=1) >= part.min(axis=1).max())
        if index in able:
            values = tile.values(logits[able])
            place = pixels[tile.within(left, top)]
            np.equal(values.argmax(axis=0), np.searchsorted(able, index), out=place)
    return Mask(left, top, pixels)
