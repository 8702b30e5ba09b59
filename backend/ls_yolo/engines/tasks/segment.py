"""segment: an outline for each object."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ls_yolo.engines.letterbox import Geometry
from ls_yolo.engines.tasks.base import Candidates, Floats, Objects
from ls_yolo.engines.upsample import Grid
from ls_yolo.results import Boxes, Mask, Masks


class Segment(Objects):
    """See `engines.tasks.base.Objects`; there is a coefficient more for each prototype.

    The second output has the prototypes, shape (prototypes, rows, columns): grids that cover the
    input. An object is where their sum, each times its coefficient, is above 0, in its box.
    """

    def _more(self, outputs: Sequence[Any]) -> int:
        return int(outputs[1].shape[1])

    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> Masks:
        kept, xyxy = self._kept(found, iou)
        boxes = Boxes(geometry.back(xyxy), kept.scores, kept.classes)
        if not kept.scores.size:
            return Masks(boxes, [])
        prototypes = second()
        masks = [
            partial(mask, box, coefficients, prototypes, geometry)
            for box, coefficients in zip(boxes.xyxy, kept.more, strict=True)
        ]
        return Masks(boxes, masks)


def mask(box: Floats, coefficients: Floats, prototypes: Floats, geometry: Geometry) -> Mask:
    """The mask in ``box``: left, top, right, bottom in pixels of the image, inside of it.

    A pixel is in the box if its upper left corner is, as ultralytics has it.
    coefficients: shape (k,). prototypes: shape (k, rows, columns).
    """
    left, top, right, bottom = (math.ceil(edge) for edge in box.tolist())
    grid = Grid(geometry, *prototypes.shape[1:])
    pixels = np.zeros((max(bottom - top, 0), max(right - left, 0)), np.bool_)
    for tile in grid.tiles(left, top, right, bottom):
        part = prototypes[:, tile.down.cells, tile.across.cells]
        sums = np.tensordot(coefficients, part, 1)
        values = tile.down.weights @ sums @ tile.across.weights.T
        np.greater(values, 0, out=pixels[tile.within(left, top)])
    return Mask(left, top, pixels)
