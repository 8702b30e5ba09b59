"""A model under the mouse: what a person has drawn with a smart tool, and which object is meant.

Pure geometry, no I/O. Label Studio's page sends what is drawn in ``context``; see
https://labelstud.io/guide/ml#interactive-pre-annotations
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ls_yolo.results import Boxes, Masks, Objects

MARGIN = 0.25
"""How much wider than a drawn box is looked at, on each side, in parts of its longer side."""
LEAST_MARGIN = 32
"""The same at least, in pixels."""
LEAST_IOU = 0.1
"""What a drawn box shares with the object that is meant, at least, 0 to 1."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Point:
    """A click, in per cent of the image. positive: it is on the object, else beside it."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True)
class Prompts:
    """What was drawn of one object.

    label: the label that was chosen for it, as Label Studio stores it.
    from_name, to_name: the smart tool and the object tag that it was drawn on.
    item_index: which image of several; None where there is one.
    ids: those of the regions that it was read from.
    box: left, top, right, bottom in per cent of the image; None where only clicks were made.
    """

    label: str
    from_name: str
    to_name: str
    item_index: int | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    ids: frozenset[str] = frozenset()


def prompts(context: Any) -> Prompts | None:
    """What ``context`` of a request says was drawn; None where it says nothing that can be used.

    The last region is what the request is about; those before it that were drawn with the same
    label on the same image belong to it.
    """
    regions = context.get("result") if isinstance(context, Mapping) else None
    if not isinstance(regions, list):
        return None
    drawn = [found for region in regions if (found := _prompt(region))]
    if not drawn:
        return None
    last = drawn[-1]
    same = [p for p in drawn if (p.label, p.to_name, p.item_index) ==
            (last.label, last.to_name, last.item_index)]  # fmt: skip
    return Prompts(
        last.label,
        last.from_name,
        last.to_name,
        last.item_index,
        next((p.box for p in reversed(same) if p.box), None),
        tuple(point for p in same for point in p.points),
        frozenset().union(*(p.ids for p in same)),
    )


def _prompt(region: Any) -> Prompts | None:
    """A region as the page sends it."""
    if not isinstance(region, Mapping) or not isinstance(region.get("value"), Mapping):
        return None
    value, index = region["value"], region.get("item_index")
    labels = value.get(str(region.get("type"))) or value.get("labels")
    place = [value.get(key) for key in ("x", "y")]
    names = region.get("from_name"), region.get("to_name")
    if not (
        isinstance(labels, list)
        and labels
        and all(isinstance(text, str) for text in (*labels, *names))
        and all(_number(number) for number in place)
    ):
        return None
    x, y = place
    from_name, to_name = map(str, names)
    which = index if isinstance(index, int) else None
    ids = frozenset([str(region["id"])] if region.get("id") else [])
    drawn = Prompts(labels[0], from_name, to_name, which, ids=ids)
    width, height = value.get("width"), value.get("height")
    # A shape with its labels in a tag of their own comes twice: as itself, and with its labels.
    beside = region.get("type") == "labels"
    kind = str(region.get("type"))
    if (kind.startswith("rectangle") or beside) and _number(width) and _number(height):
        # A turned box is taken as if it were upright: what is inside is looked for with a margin.
        return replace(drawn, box=(x, y, x + width, y + height))
    if kind.startswith("keypoint") or (beside and height is None):
        positive = region.get("is_positive", value.get("is_positive"))
        return replace(drawn, points=(Point(x, y, positive is not False),))
    return None


def _number(found: Any) -> bool:
    # Far outside what a page sends, where sums of it are numbers still.
    return isinstance(found, (int, float)) and abs(found) < 1e6


def crop(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """What to look at for an object in ``box``, in pixels: left, top, right, bottom.

    box: in pixels of an image of ``width`` x ``height`` pixels.
    """
    left, top, right, bottom = box
    margin = max(MARGIN * max(right - left, bottom - top), LEAST_MARGIN)
    x0, y0 = max(math.floor(left - margin), 0), max(math.floor(top - margin), 0)
    x1, y1 = min(math.ceil(right + margin), width), min(math.ceil(bottom + margin), height)
    # A box that lies outside the image leaves a pixel, on which nothing is found.
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def in_pixels(drawn: Prompts, width: int, height: int) -> Prompts:
    """``drawn`` in pixels of an image of ``width`` x ``height``, instead of per cent."""
    x, y = width / 100, height / 100
    box = drawn.box
    return replace(
        drawn,
        box=box and (box[0] * x, box[1] * y, box[2] * x, box[3] * y),
        points=tuple(Point(p.x * x, p.y * y, p.positive) for p in drawn.points),
    )


def points_at_something(drawn: Prompts) -> bool:
    """Whether ``drawn`` says where an object is, not only where it is not."""
    return drawn.box is not None or any(point.positive for point in drawn.points)


def inside(drawn: Prompts, width: int, height: int) -> Prompts:
    """``drawn``, in pixels of an image of ``width`` x ``height``, without what lies outside; a box
    of which nothing is left is none."""
    points = tuple(p for p in drawn.points if 0 <= p.x <= width and 0 <= p.y <= height)
    box = drawn.box
    if box is not None:
        left, top, right, bottom = box
        box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
        if box[0] >= box[2] or box[1] >= box[3]:
            box = None
    return replace(drawn, box=box, points=points)


def meant(result: Objects, drawn: Prompts, classes: Collection[int]) -> int | None:
    """Which object of ``result`` is meant by ``drawn``, in pixels; None where none is.

    Of the objects of ``classes`` that every positive click is on and no negative one, the one that
    fits a drawn box best, else the one with the highest score.
    """
    boxes: Boxes = result.boxes
    best, most = None, -1.0
    for index in np.flatnonzero(np.isin(boxes.classes, list(classes))).tolist():
        fit = float(boxes.scores[index])
        if drawn.box is not None:
            fit = _iou(boxes.xyxy[index].tolist(), drawn.box)
            if fit < LEAST_IOU:
                continue
        if fit > most and _on(result, index, drawn.points):
            best, most = index, fit
    return best


def _on(result: Objects, index: int, points: Iterable[Point]) -> bool:
    """Whether an object has every positive point and no negative one."""
    left, top, right, bottom = result.boxes.xyxy[index].tolist()
    mask = None
    for point in points:
        inside = left <= point.x < right and top <= point.y < bottom
        if inside and isinstance(result, Masks):
            mask = mask or result.masks[index]()
            x, y = math.floor(point.x) - mask.left, math.floor(point.y) - mask.top
            height, width = mask.pixels.shape
            inside = 0 <= x < width and 0 <= y < height and bool(mask.pixels[y, x])
        if inside != point.positive:
            return False
    return True


def _iou(one: Iterable[float], other: Box) -> float:
    a, b, c, d = one
    e, f, g, h = other
    shared = max(min(c, g) - max(a, e), 0.0) * max(min(d, h) - max(b, f), 0.0)
    total = (c - a) * (d - b) + (g - e) * (h - f) - shared
    return shared / total if total > 0 else 0.0
