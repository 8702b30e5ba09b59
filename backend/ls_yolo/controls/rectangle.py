"""RectangleLabels: upright boxes, in per cent of the image's width and height."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ls_yolo.controls.base import ControlType
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes


def regions(
    control: Control, boxes: Boxes, labels: Mapping[int, str], width: int, height: int
) -> list[dict[str, Any]]:
    """The rectangles of ``boxes`` on an image of ``width`` x ``height`` pixels.

    Boxes whose class has no label are left out, and so are those with no area inside the image and
    those with an edge or a score that is no number, which Label Studio would not take.
    ``x``, ``y``, ``width`` and ``height`` are 0 to 100 and end inside it; ``score`` is 0 to 1.
    https://labelstud.io/tags/rectanglelabels
    """
    found = []
    for (left, top, right, bottom), score, index in zip(
        boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True
    ):
        label = labels.get(index)
        x0, x1 = sorted(_percent(edge, width) for edge in (left, right))
        y0, y1 = sorted(_percent(edge, height) for edge in (top, bottom))
        # Written so that NaN, which compares false with everything, is left out too.
        if label is None or not (x1 > x0 and y1 > y0) or math.isnan(score):
            continue
        found.append(
            {
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "score": min(max(score, 0.0), 1.0),
                "value": {
                    "x": x0,
                    "y": y0,
                    "width": x1 - x0,
                    "height": y1 - y0,
                    "rotation": 0,
                    "rectanglelabels": [label],
                },
            }
        )
    return found


def _percent(edge: float, size: int) -> float:
    return min(max(edge, 0.0), float(size)) / size * 100.0


CONTROL = ControlType("RectangleLabels", "Image", (Boxes,), regions)
