"""From the coarse grid of a network's output to the image's pixels, a part of them at a time.

Linear between the centres of cells, as ultralytics has it for ``retina_masks=True``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ls_yolo.engines.letterbox import Geometry

TILE = 256
"""Longest side, in pixels, of what is made at once: it stays in the CPU's cache."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """Some pixels of a side of the image, as sums of cells.

    first, last: the pixels, the last one excluded.
    cells: the cells that count for them.
    weights: how much, 0 to 1, in a row together 1; shape (last - first, number of those cells).
    """

    first: int
    last: int
    cells: slice
    weights: Floats


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of pixels: its spans down and across."""

    down: Span
    across: Span

    def values(self, grid: Floats) -> Floats:
        """``grid``, shape (..., rows, columns), at these pixels."""
        part = grid[..., self.down.cells, self.across.cells]
        made: Floats = np.asarray(self.down.weights @ part @ self.across.weights.T, np.float32)
        return made

    def within(self, left: int, top: int) -> tuple[slice, slice]:
        """Where it lies in an array whose first pixel is at ``left``, ``top`` of the image."""
        return (
            slice(self.down.first - top, self.down.last - top),
            slice(self.across.first - left, self.across.last - left),
        )


@dataclass(frozen=True, slots=True)
class Grid:
    """How a grid of ``rows`` x ``columns`` cells lies over an image: it covers the whole input."""

    geometry: Geometry
    rows: int
    columns: int

    def tiles(self, left: int, top: int, right: int, bottom: int) -> Iterator[Tile]:
        """Tiles that cover the rectangle, in pixels of the image, right and bottom excluded."""
        shape, inner = self.geometry.shape, self.geometry
        across = [
            _span(a, b, inner.width, inner.inner_width, inner.left, shape[1], self.columns)
            for a, b in _parts(left, right)
        ]
        for a, b in _parts(top, bottom):
            down = _span(a, b, inner.height, inner.inner_height, inner.top, shape[0], self.rows)
            for span in across:
                yield Tile(down, span)

    def covered(self) -> tuple[slice, slice]:
        """The rows and columns of cells that the image is under, be it in part; at least one."""
        shape, inner = self.geometry.shape, self.geometry
        return (
            _covered(inner.top, inner.inner_height, shape[0], self.rows),
            _covered(inner.left, inner.inner_width, shape[1], self.columns),
        )


def _parts(first: int, last: int) -> list[tuple[int, int]]:
    return [(a, min(a + TILE, last)) for a in range(first, last, TILE)]


def _span(first: int, last: int, size: int, inner: int, before: int, side: int, cells: int) -> Span:
    """The pixels from ``first`` to ``last`` of an image's side of ``size`` pixels, which is scaled
    to ``inner`` and lies after ``before`` in an input of ``side`` pixels with ``cells`` cells."""
    pixels = np.arange(first, last)
    at = ((pixels + 0.5) * (inner / size) + before) * (cells / side) - 0.5
    at = np.clip(at, 0, cells - 1)
    cell = np.minimum(at.astype(np.int64), max(cells - 2, 0))
    lowest, number = int(cell[0]), int(cell[-1] - cell[0]) + min(cells, 2)
    part = (at - cell).astype(np.float32)
    weights = np.zeros((last - first, number), np.float32)
    row = pixels - first
    weights[row, cell - lowest] = 1 - part
    if cells > 1:
        weights[row, cell - lowest + 1] = part
    return Span(first, last, slice(lowest, lowest + number), weights)


def _covered(before: int, inner: int, side: int, cells: int) -> slice:
    return slice(before * cells // side, -(-(before + inner) * cells // side))
