"""RectangleLabels: boxes, in per cent of the image's width and height; turned by ``model_obb``."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ls_yolo.controls.base import ControlType, Region, Target, region, taken, upright
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Keypoints, Masks, OrientedBoxes


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
            place = rotated(target, *turned[row])
        if place is not None:
            found += region(target, place, index, score)
    return found


def bounds(xywhr: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The upright boxes, shape (n, 4), around the turned ones, shape (n, 5), in pixels."""
    centre, half, angle = xywhr[:, :2], xywhr[:, 2:4] / 2, xywhr[:, 4:]
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    reach = half * cos + half[:, ::-1] * sin
    return np.concatenate([centre - reach, centre + reach], axis=1)


def rotated(
    target: Target, x: float, y: float, width: float, height: float, angle: float
) -> dict[str, float] | None:
    """A turned box, in pixels and radians, as Label Studio has it; None where it has no area.

    Turned on by a right angle, with its sides exchanged, it is the same box from another corner:
    one of the four lies in the image more often than a given one.
    """
    if not (width > 0 and height > 0 and math.isfinite(angle)):
        return None
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
    names = "x", "y", "width", "height", "rotation"
    return dict(zip(names, taken(forms, (100.0,) * 4), strict=True))


def _draws(control: Control) -> tuple[type, ...]:
    if control.flag("model_obb"):
        return (OrientedBoxes,)
    return Boxes, Masks, Keypoints, OrientedBoxes


CONTROL = ControlType("RectangleLabels", "Image", _draws, regions, unlabelled="Rectangle")
