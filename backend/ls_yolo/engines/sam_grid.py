"""From the grid that a SAM answers with to the pixels of an object. Pure geometry."""

from __future__ import annotations

import math

import numpy as np

from ls_yolo.engines.letterbox import Geometry
from ls_yolo.engines.upsample import Floats, Grid
from ls_yolo.results import Mask

SIDE = 1024
"""Both sides of what the networks get, in pixels."""


def geometry(width: int, height: int) -> Geometry:
    """How an image of ``width`` x ``height`` pixels lies in the input: in its upper left corner."""
    scale = min(SIDE / height, SIDE / width)
    inner = max(round(width * scale), 1), max(round(height * scale), 1)
    return Geometry(width, height, *inner, 0, 0, SIDE - inner[0], SIDE - inner[1])


def outlined(logits: Floats, where: Geometry) -> Mask | None:
    """The pixels of the image where ``logits``, a grid over the whole input, are above 0, cut to
    their bounds; None where there is none. Only the part that may have some is made."""
    grid = Grid(where, *logits.shape)
    rows, columns = np.nonzero(logits > 0)
    if not rows.size:
        return None
    # Between the centres of two cells the line is straight, so what is above 0 lies less than a
    # cell beyond the centre of one that is.
    down, across = where.height / where.inner_height, where.width / where.inner_width
    cell_down, cell_across = (down * SIDE / logits.shape[0], across * SIDE / logits.shape[1])
    top = max(math.floor((rows.min() - 0.5) * cell_down), 0)
    left = max(math.floor((columns.min() - 0.5) * cell_across), 0)
    bottom = min(math.ceil((rows.max() + 1.5) * cell_down), where.height)
    right = min(math.ceil((columns.max() + 1.5) * cell_across), where.width)
    if top >= bottom or left >= right:  # in the padding
        return None
    pixels = np.zeros((bottom - top, right - left), np.bool_)
    for tile in grid.tiles(left, top, right, bottom):
        cells, inside = logits[tile.down.cells, tile.across.cells], tile.within(left, top)
        if cells.min() > 0:  # between numbers above 0 there are no others; most of an object
            pixels[inside] = True
        elif cells.max() > 0:
            np.greater(tile.values(logits), 0, out=pixels[inside])
    return cut(Mask(left, top, pixels))


def cut(mask: Mask) -> Mask | None:
    """``mask`` cut to the bounds of its pixels; None where it has none."""
    rows, columns = np.flatnonzero(mask.pixels.any(1)), np.flatnonzero(mask.pixels.any(0))
    if not rows.size:
        return None
    top, left = int(rows[0]), int(columns[0])
    pixels = mask.pixels[top : rows[-1] + 1, left : columns[-1] + 1]
    return Mask(mask.left + left, mask.top + top, pixels.copy())
