"""Masks to outlines along the edges of pixels, and back."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo.results import Mask

Points = npt.NDArray[np.float64]
"""The corners of a polygon, shape (n, 2): x and y in pixels, whose edges are the whole numbers."""

TOLERANCE = 0.5
"""How far an outline may lie from the edge of the mask, in pixels."""
LEAST_IOU = 0.97
"""How much of outline and mask together must be in both; else the tolerance is halved."""
EXACT = 0.1
"""Below this tolerance no corner is left out."""
TINY = 4, 0.01
"""Parts with fewer pixels, or less than this share of the object's pixels, are left out."""


def outlines(mask: Mask, tolerance: float = TOLERANCE) -> list[Points]:
    """The outlines of the parts of ``mask``, largest first, in pixels of the image.

    Each has three corners or more. Holes are filled. Tiny parts are left out, but for the largest:
    an object has one part at least unless it has no pixel. ``tolerance``, in pixels, is the most.
    """
    parts = _parts(mask.pixels)
    areas = [_area(part) for part in parts]
    least = max(TINY[0], TINY[1] * sum(areas))
    order = sorted(range(len(parts)), key=lambda part: -areas[part])
    kept = [part for place, part in enumerate(order) if place == 0 or areas[part] >= least]
    offset = np.array([mask.left, mask.top])
    return [_moved(_simple(parts[part], areas[part], tolerance), offset) for part in kept]


def _moved(points: Points, offset: npt.NDArray[Any]) -> Points:
    moved: Points = points + offset
    return moved


def _parts(pixels: npt.NDArray[np.bool_]) -> list[Points]:
    """The outer edge of each group of pixels that touch, at corners too, without holes.

    OpenCV goes through the centres of pixels. With each pixel made four, the centre of a quarter
    tells which corner of the pixel it lies at.
    """
    nearest = cv2.INTER_NEAREST
    quarters = cv2.resize(pixels.view(np.uint8), None, fx=2, fy=2, interpolation=nearest)
    found, _ = cv2.findContours(quarters, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [_corners((contour[:, 0] + 1) // 2) for contour in found]


def _corners(points: npt.NDArray[Any]) -> Points:
    """``points`` of a closed line without those where it does not turn."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    back = (before * after).sum(axis=1) < 0
    found: Points = points[turns | back].astype(np.float64)
    return found


def _without_steps(points: Points) -> Points:
    """``points`` with the middle of each step of one pixel for its two ends: what is slanted or
    round is all such steps. Corners stay, and the ends of what stands out or in."""
    edges = np.roll(points, -1, axis=0) - points
    before = np.roll(edges, 1, axis=0)
    length = np.abs(edges).sum(axis=1)
    turn = np.sign(before[:, 0] * edges[:, 1] - before[:, 1] * edges[:, 0])
    flat = (length > 1) & (turn == np.roll(turn, -1))
    corner = (length > 1) & (np.roll(length, 1) > 1)
    kept = np.stack([corner | flat | np.roll(flat, 1), length == 1], axis=1)
    found: Points = np.stack([points, points + edges / 2], axis=1)[kept]
    return found


def _area(points: Points) -> float:
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def _simple(points: Points, area: float, tolerance: float) -> Points:
    """``points`` with as few corners as ``tolerance`` and `LEAST_IOU` allow."""
    low = points.min(axis=0)
    local = points - low
    width, height = (int(side) for side in local.max(axis=0))
    smooth = _without_steps(local).astype(np.float32)[:, None]
    least = (1 - LEAST_IOU) * area
    whole = None
    while tolerance >= EXACT:
        fewer = cv2.approxPolyDP(smooth, tolerance, True)[:, 0].astype(np.float64)
        if len(fewer) >= 3 and abs(_area(fewer) - area) <= least:
            # What differs lies beside the line, no further from it than the tolerance.
            if tolerance * cv2.arcLength(fewer.astype(np.float32), True) <= least:
                return _moved(fewer, low)
            whole = filled(local, width, height) if whole is None else whole
            inside = filled(fewer, width, height)
            both = np.count_nonzero(whole & inside)
            if both >= LEAST_IOU * np.count_nonzero(whole | inside):
                return _moved(fewer, low)
        tolerance /= 2
    return points


def filled(points: Points, width: int, height: int) -> npt.NDArray[np.bool_]:
    """The pixels whose centre lies in the polygon ``points``, shape (height, width)."""
    ahead = np.roll(points, -1, axis=0)
    (x0, y0), (x1, y1) = points.T, ahead.T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    count = last - first
    # A row for each crossing of an edge with the middle of a row of pixels.
    edge = np.repeat(np.arange(len(points)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    crossed = np.zeros((height, width + 1), np.uint8)
    np.add.at(crossed, (row, column), 1)
    inside: npt.NDArray[np.bool_] = np.cumsum(crossed, axis=1, dtype=np.uint8)[:, :width] % 2 == 1
    return inside
