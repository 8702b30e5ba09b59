"""RectangleLabels: boxes, in per cent of the image's width and height; turned by ``model_obb``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo.controls.base import ControlType, Region, Target, fits, region, taken, upright
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Keypoints, Masks, OrientedBoxes

ENDS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
"""The corners of a box, from its centre, in halves of its sides."""
LIMITS = 100.0, 100.0, 100.0, 100.0
"""Of x, y, width and height, in per cent."""


def regions(target: Target, result: Boxes | Masks | Keypoints | OrientedBoxes) -> list[Region]:
    """The boxes of ``result`` as rectangles.

    Boxes with no area inside the image and those with an edge that is no number are left out.
    ``x``, ``y``, ``width`` and ``height`` are 0 to 100, and where it is not turned, end inside the
    image. ``rotation``, 0 to 360, is clockwise about the corner (``x``, ``y``).
    https://labelstud.io/tags/rectanglelabels
    """
    if isinstance(result, OrientedBoxes):
        boxes: Boxes | OrientedBoxes = result
        edges = bounds(result.xywhr)
    else:
        boxes = result if isinstance(result, Boxes) else result.boxes
        edges = boxes.xyxy
    turn = isinstance(boxes, OrientedBoxes) and target.control.flag("model_obb")
    turned = boxes.xywhr.tolist() if turn and isinstance(boxes, OrientedBoxes) else None
    found = []
    for row, (sides, score, index) in enumerate(
        zip(edges.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True)
    ):
        place = upright(target, sides)
        if place is not None and turned is not None:
            place = rotated(target, turned[row])
        if place is not None:
            found += region(target, place, index, score)
    return found


def bounds(xywhr: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The upright boxes, shape (n, 4), around the turned ones, shape (n, 5), in pixels."""
    # What is no number is left out later.
    xywhr = np.where(np.isfinite(xywhr).all(axis=1, keepdims=True), xywhr, np.nan)
    centre, half, angle = xywhr[:, :2], xywhr[:, 2:4] / 2, xywhr[:, 4:]
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    reach = half * cos + half[:, ::-1] * sin
    return np.concatenate([centre - reach, centre + reach], axis=1)


def corners(xywhr: Sequence[float] | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The corners of a turned box, clockwise from the one that is top left before it is turned,
    shape (4, 2), in pixels."""
    x, y, width, height, angle = (float(value) for value in xywhr)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = ENDS * (width / 2, height / 2) @ np.array([[cos, sin], [-sin, cos]])
    found: npt.NDArray[np.float32] = np.add(turned, (x, y)).astype(np.float32)
    return found


def rotated(target: Target, xywhr: Sequence[float]) -> dict[str, float] | None:
    """A turned box, in pixels and radians, as Label Studio has it; None where it has no area.

    Turned on by a right angle, with its sides exchanged, it is the same box from another corner:
    one of the four lies in the image more often than a given one. Where none does, the box is cut
    to what is seen of it first.
    """
    if not (xywhr[2] > 0 and xywhr[3] > 0 and math.isfinite(xywhr[4])):
        return None
    forms = _forms(target, *xywhr)
    if not any(fits(form, LIMITS) for form in forms):
        forms = _forms(target, *_seen(target, *xywhr))
    names = "x", "y", "width", "height", "rotation"
    return dict(zip(names, taken(forms, LIMITS), strict=True))


def _forms(
    target: Target, x: float, y: float, width: float, height: float, angle: float
) -> list[tuple[float, ...]]:
    forms = []
    for quarter in range(4):
        wide, high = (height, width) if quarter % 2 else (width, height)
        turn = angle + quarter * math.pi / 2
        cos, sin = math.cos(turn), math.sin(turn)
        left = x - (wide * cos - high * sin) / 2
        top = y - (wide * sin + high * cos) / 2
        sizes = (target.width, target.height) * 2
        place = [v / size * 100 for v, size in zip((left, top, wide, high), sizes, strict=True)]
        forms.append((*place, math.degrees(turn)))
    return forms


def _seen(
    target: Target, x: float, y: float, width: float, height: float, angle: float
) -> tuple[float, float, float, float, float]:
    """The box, turned the same, around what of it lies in the image; itself where nothing does."""
    axes = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    image = (ENDS + 1) / 2 * (target.width, target.height)
    box = corners([x, y, width, height, angle])
    area, seen = cv2.intersectConvexConvex(box, image.astype(np.float32))
    if not area:
        return x, y, width, height, angle
    along = seen[:, 0] @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    (x, y), (width, height) = (low + high) / 2 @ axes, high - low
    return float(x), float(y), float(width), float(height), angle


def _draws(control: Control) -> tuple[type, ...]:
    if control.flag("model_obb"):
        return (OrientedBoxes,)
    return Boxes, Masks, Keypoints, OrientedBoxes


CONTROL = ControlType("RectangleLabels", "Image", _draws, regions, unlabelled="Rectangle")
