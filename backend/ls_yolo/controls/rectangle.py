"""RectangleLabels: boxes, in per cent of the image's width and height; turned by ``model_obb``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ls_yolo.controls.base import ControlType, Region, Target, fits, region, taken, upright
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Keypoints, Masks, Objects, OrientedBoxes

ENDS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
"""The corners of a box, from its centre, in halves of its sides."""
LIMITS = 100.0, 100.0, 100.0, 100.0
"""Of x, y, width and height, in per cent."""


def regions(target: Target, result: Objects) -> list[Region]:
    """The boxes of ``result`` as rectangles.

    Boxes with no area inside the image and those with an edge that is no number are left out.
    ``x``, ``y``, ``width`` and ``height`` are 0 to 100, and where it is not turned, end inside the
    image. ``rotation``, 0 to 360, is clockwise about the corner (``x``, ``y``).
    https://labelstud.io/tags/rectanglelabels
    """
    boxes = result.boxes
    turned = None
    if isinstance(result, OrientedBoxes) and target.control.flag("model_obb"):
        turned = result.xywhr.tolist()
    found = []
    for row, (sides, score, index) in enumerate(
        zip(boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True)
    ):
        place = upright(target, sides)
        if place is not None and turned is not None:
            place = rotated(target, turned[row])
        if place is not None:
            found += region(target, place, index, score)
    return found


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
    at one end until one does.
    """
    if not (all(map(math.isfinite, xywhr)) and min(xywhr[2:4]) > 0):
        return None
    forms = _forms(target, *xywhr)
    if not any(fits(form, LIMITS) for form in forms):
        forms = _cut(target, xywhr) or forms
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


def _cut(target: Target, box: Sequence[float]) -> list[tuple[float, ...]]:
    """The form of the box without as much of its ends as it takes for Label Studio to take it: the
    least of it. None where no corner can lie in the image."""
    ends = corners(box).astype(np.float64)
    sides = np.array([target.width, target.height])
    found = []
    for corner in range(4):
        for next_to in (corner - 1, (corner + 1) % 4):
            along = ends[next_to] - ends[corner]
            with np.errstate(divide="ignore", invalid="ignore"):
                # Where on this side the image begins and ends, in parts of the side.
                bounds = np.sort([-ends[corner] / along, (sides - ends[corner]) / along], axis=0)
            first, last = max(float(bounds[0].max()), 0.0), float(bounds[1].min())
            if first <= last and first < 1:
                left = [1.0, 1.0]
                left[0 if corner // 2 == next_to % 4 // 2 else 1] -= first
                x, y = (np.array(box[:2]) + along * first / 2).tolist()
                form = _forms(target, x, y, box[2] * left[0], box[3] * left[1], box[4])[corner]
                kept = (1 - first) * min(1, 100 / form[2]) * min(1, 100 / form[3])
                found.append((kept, form))
    return [max(found)[1]] if found else []


def _draws(control: Control) -> tuple[type, ...]:
    if control.flag("model_obb"):
        return (OrientedBoxes,)
    return Boxes, Masks, Keypoints, OrientedBoxes


CONTROL = ControlType("RectangleLabels", "Image", _draws, regions, unlabelled="Rectangle")
