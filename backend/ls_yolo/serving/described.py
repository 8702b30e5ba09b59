"""What a model says of an image, as JSON for people and scripts: without any control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ls_yolo.controls import base, outline, rectangle
from ls_yolo.results import Classes, Keypoints, Masks, OrientedBoxes, Result

CLASSES = 5
"""How many of the surest classes of an image are told."""


def describe(result: Result, names: Mapping[int, str], lowest: float) -> dict[str, Any]:
    """``{"boxes": [{"label", "score", "box"}]}``; box is left, top, right, bottom in pixels.

    A box has ``polygons`` too where the model segments, ``corners`` and ``angle`` (degrees,
    clockwise) where it turns boxes, ``keypoints`` (x, y, score) where it finds poses. What
    classifies has ``{"classes": [{"label", "score"}]}``, the surest above ``lowest``.

    names: class index to class name.
    """
    if isinstance(result, Classes):
        surest = sorted(base.highest(result).items(), key=lambda item: -item[1])[:CLASSES]
        return {"classes": [_said(names[i], score) for i, score in surest if score > lowest]}
    boxes = result.boxes
    scored = zip(boxes.classes.tolist(), boxes.scores.tolist(), boxes.xyxy, strict=True)
    rows = [{**_said(names[index], score), "box": _places(box)} for index, score, box in scored]
    for number, row in enumerate(rows):
        if isinstance(result, Masks):
            row["polygons"] = [_places(line) for line in outline.outlines(result.masks[number]())]
        elif isinstance(result, OrientedBoxes):
            row["corners"] = _places(rectangle.corners(result.xywhr[number]))
            row["angle"] = round(math.degrees(result.xywhr[number, 4]), 1)
        elif isinstance(result, Keypoints):
            points = zip(_places(result.xy[number]), result.scores[number].tolist(), strict=True)
            row["keypoints"] = [[*place, round(score, 4)] for place, score in points]
    return {"boxes": rows}


def _said(label: str, score: float) -> dict[str, Any]:
    return {"label": label, "score": round(score, 4)}


def _places(found: Any) -> Any:
    """Pixels, as JSON takes them, to a tenth."""
    return found.astype(float).round(1).tolist()
