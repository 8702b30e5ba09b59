"""RectangleLabels: upright boxes, in per cent of the image's width and height."""

from __future__ import annotations

from ls_yolo.controls.base import ControlType, Region, Target, percent, region
from ls_yolo.results import Boxes, Keypoints, Masks


def regions(target: Target, result: Boxes | Masks | Keypoints) -> list[Region]:
    """The boxes of ``result`` as rectangles.

    Boxes with no area inside the image and those with an edge that is no number are left out.
    ``x``, ``y``, ``width`` and ``height`` are 0 to 100 and end inside the image.
    https://labelstud.io/tags/rectanglelabels
    """
    boxes = result if isinstance(result, Boxes) else result.boxes
    found = []
    for (left, top, right, bottom), score, index in zip(
        boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True
    ):
        x0, x1 = sorted(percent(edge, target.width) for edge in (left, right))
        y0, y1 = sorted(percent(edge, target.height) for edge in (top, bottom))
        # Written so that NaN, which compares false with everything, is left out too.
        if x1 > x0 and y1 > y0:
            place = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
            found += region(target, "rectangle", place, index, score)
    return found


CONTROL = ControlType("RectangleLabels", "Image", lambda _: (Boxes, Masks, Keypoints), regions)
