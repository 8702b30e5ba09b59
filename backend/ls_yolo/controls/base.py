"""What a control declares of itself, and what regions have in common."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Control, Mapped
from ls_yolo.results import Classes, Mask, Masks, Result

Region = dict[str, Any]
"""A region as Label Studio stores it in the ``result`` of a prediction."""


@dataclass(frozen=True)
class Target:
    """What regions are made for: a control on an image.

    labels: class index to label, of those classes that the control has a label for.
    names: class index to class name, of all classes of the model.
    width, height: of the upright image, in pixels.
    lowest: what a score must exceed, 0 to 1. Results are without what does not, but for classes.
    boxes: class index to label of the control that takes the boxes of bodies (`ControlType.boxes`).
    """

    control: Control
    labels: Mapping[int, str]
    names: Mapping[int, str]
    width: int
    height: int
    lowest: float = 0.0
    boxes: Mapping[int, str] | None = None


Encode = Callable[[Target, Any], list[Region]]
"""(target, result) to regions."""


def _nothing(_: Control) -> None:
    return None


@dataclass(frozen=True)
class ControlType:
    """A control that predictions are drawn for.

    tag, object_tag: as Label Studio writes them, such as ``RectangleLabels`` and ``Image``.
    draws: the result types that ``encode`` takes for a control, by its attributes; none where there
        is nothing to draw.
    unlabelled: the tag of the same shape whose labels stand in a Labels tag beside, if any.
    match: which labels of a control stand for which class names, as `label_config.match`.
    join: for what is said of an image as a whole: makes one answer of all that ``encode`` made for
        a control, of several models and of several images.
    check: raises LabelConfigError for an attribute that cannot be used.
    boxes: the name of the control that takes the boxes of what ``encode`` draws, if any.
    """

    tag: str
    object_tag: str
    draws: Callable[[Control], tuple[type, ...]]
    encode: Encode
    unlabelled: str = ""
    match: Callable[[Control, Iterable[str]], Mapped] = label_config.match
    join: Callable[[Control, list[Region]], list[Region]] | None = None
    check: Callable[[Control], object] = _nothing
    boxes: Callable[[Control], str | None] = _nothing


def new_id() -> str:
    """A name for a region that others refer to."""
    return uuid.uuid4().hex[:10]


def region(target: Target, geometry: Mapping[str, Any], index: int, score: float) -> list[Region]:
    """The region of an object, in a list: empty where its class has no label, or where the score is
    no number, which Label Studio would not take.

    geometry: its place, in Label Studio's terms. index: the class. score: clipped to 0 to 1.
    """
    label = target.labels.get(index)
    return [] if label is None else labelled(target, geometry, label, score)


def labelled(
    target: Target, geometry: Mapping[str, Any], label: str, score: float, **more: Any
) -> list[Region]:
    """`region` by its label; a pair of them where a Labels tag has the labels: the page takes both
    for one, by their ``id``. ``more``: other fields of a region."""
    control = target.control
    if math.isnan(score):
        return []
    if not control.labels_from:
        kind = control.tag.lower()
        return [_region(target, control.from_name, kind, {**geometry, kind: [label]}, score, more)]
    more = {"id": new_id(), **more}
    return [
        _region(target, control.from_name, control.tag.lower(), dict(geometry), score, more),
        _region(
            target, control.labels_from, "labels", {**geometry, "labels": [label]}, score, more
        ),
    ]


def rectangle_of(
    target: Target, name: str, geometry: Mapping[str, Any], label: str, score: float, key: str
) -> list[Region]:
    """A rectangle of the RectangleLabels control ``name`` on the same image, called ``key``."""
    if math.isnan(score):
        return []
    kind = "rectanglelabels"
    return [_region(target, name, kind, {**geometry, kind: [label]}, score, {"id": key})]


def _region(
    target: Target,
    name: str,
    kind: str,
    value: Mapping[str, Any],
    score: float,
    more: Mapping[str, Any],
) -> Region:
    return {
        **more,
        "from_name": name,
        "to_name": target.control.to_name,
        "type": kind,
        "original_width": target.width,
        "original_height": target.height,
        "image_rotation": 0,
        "score": min(max(score, 0.0), 1.0),
        "value": value,
    }


def answer(control: Control, value: object, score: float | None) -> Region:
    """What is said of an image as a whole, in the control ``control``; no score: nothing was seen
    that could have one."""
    kind = control.tag.lower()
    found = {"from_name": control.from_name, "to_name": control.to_name, "type": kind}
    return {**found, "value": {kind: value}} | ({} if score is None else {"score": score})


def percent(edge: float, size: int) -> float:
    """A coordinate in pixels, clipped to an image's side of ``size`` pixels, in per cent of it."""
    return min(max(edge, 0.0), float(size)) / size * 100.0


def upright(target: Target, edges: Sequence[float]) -> dict[str, float] | None:
    """The rectangle with the edges left, top, right, bottom in pixels, cut at those of the image,
    as Label Studio has it; None where nothing is left of it, or an edge is no number."""
    left, top, right, bottom = edges
    x0, x1 = sorted(percent(edge, target.width) for edge in (left, right))
    y0, y1 = sorted(percent(edge, target.height) for edge in (top, bottom))
    # Written so that NaN, which compares false with everything, is left out too.
    if x1 > x0 and y1 > y0:
        return {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
    return None


def fits(form: Sequence[float], limits: Sequence[float]) -> bool:
    """Whether all numbers of ``form`` are from 0 to their limits; see `taken`."""
    return all(0 <= value <= most for value, most in zip(form, limits, strict=False))


def taken(forms: Iterable[Sequence[float]], limits: Sequence[float]) -> tuple[float, ...]:
    """Of equal forms of one shape, each of as many numbers as there are ``limits`` and an angle in
    degrees, the one that Label Studio takes: all from 0 to the limit; the least turned of several;
    the nearest, clipped, where there is none. The angle is then 0 to 360."""

    def beyond(form: Sequence[float]) -> tuple[float, float]:
        out = sum(max(-value, value - most, 0.0) for value, most in zip(form, limits, strict=False))
        angle = form[-1] % 360
        return out, min(angle, 360 - angle)

    best = min(forms, key=beyond)
    clipped = (min(max(value, 0.0), most) for value, most in zip(best, limits, strict=False))
    return *clipped, best[-1] % 360


def highest(result: Result) -> dict[int, float]:
    """Class index to its score, or that of the surest of its objects, 0 to 1."""
    if isinstance(result, Classes):
        return dict(enumerate(result.scores.tolist()))
    found: dict[int, float] = {}
    boxes = result.boxes
    for index, score in zip(boxes.classes.tolist(), boxes.scores.tolist(), strict=True):
        found[index] = max(score, found.get(index, 0.0))
    return found


def drawn_masks(target: Target, result: Masks) -> Iterator[tuple[Mask, int, float]]:
    """The masks of ``result`` that ``target`` has a label for, with class and score: made one by
    one, and only those."""
    boxes = result.boxes
    rows = zip(result.masks, boxes.classes.tolist(), boxes.scores.tolist(), strict=True)
    for make, index, score in rows:
        if index in target.labels:
            mask = make()
            if mask.pixels.any():
                yield mask, index, score
