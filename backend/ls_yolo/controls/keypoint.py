"""KeyPointLabels: the points of bodies, each a child of the body's box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ls_yolo.controls.base import (
    ControlType,
    Region,
    Target,
    labelled,
    new_id,
    percent,
    rectangle_of,
    upright,
)
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Control, Label, Mapped
from ls_yolo.results import Keypoints
from ls_yolo.text import nearest

POINT_SIZE = 1.0
"""How large a point is drawn, in pixels of the image, where the control does not say."""


def regions(target: Target, result: Keypoints) -> list[Region]:
    """The points of each body in ``result`` that a label names, and its box where a control takes
    it.

    A label names a point of a class: ``predicted_values`` has the class, ``model_index`` the place
    of the point in the model's output, from 0. Points less sure than ``model_point_threshold`` are
    left out.
    https://labelstud.io/tags/keypointlabels
    """
    lowest, size = _numbers(target.control)
    named = _points(target.control, target.names)
    found: list[Region] = []
    rows = (result.boxes.xyxy, result.boxes.scores, result.boxes.classes, result.xy, result.scores)
    for edges, score, index, points, sure in zip(*(row.tolist() for row in rows), strict=True):
        box = _box(target, edges, score, index)
        parent = {"parentID": box[0]["id"]} if box else {}
        found += box
        for point, ((x, y), certain) in enumerate(zip(points, sure, strict=True)):
            label = named.get((index, point))
            if label is not None and certain >= lowest and x == x and y == y:
                place = {
                    "x": percent(x, target.width),
                    "y": percent(y, target.height),
                    "width": size / target.width * 100,
                }
                found += labelled(target, place, label, certain, **parent)
    return found


def _box(target: Target, edges: list[float], score: float, index: int) -> list[Region]:
    name, label = _boxes(target.control), (target.boxes or {}).get(index)
    place = upright(target, edges)
    if name is None or label is None or place is None:
        return []
    return rectangle_of(target, name, place, label, score, new_id())


def _points(control: Control, names: Mapping[int, str]) -> dict[tuple[int, int], str]:
    """Class index and place of a point to the label that names it."""
    classes: dict[str, list[int]] = {}
    for index, name in names.items():
        classes.setdefault(label_config.plain(name), []).append(index)
    return {
        (index, label.point): label.value
        for label in reversed(control.labels)
        if label.point is not None
        for name in label.predicted_values
        for index in classes.get(label_config.plain(name), ())
    }


def match(control: Control, names: Iterable[str]) -> Mapped:
    """As `label_config.match`, but a label stands for a point of the classes it names."""
    known = list(dict.fromkeys(names))
    points = _points(control, dict(enumerate(known)))
    labels: dict[str, str] = {}
    classes: dict[str, list[str]] = {}
    for (index, point), value in sorted(points.items()):
        labels.setdefault(known[index], value)
        classes.setdefault(value, []).append(f"{known[index]}, point {point}")
    rest = [label for label in control.labels if label.value not in classes]
    return Mapped(labels, {label.value: _why(label, known) for label in rest}, classes)


def _why(label: Label, names: list[str]) -> str:
    what = f"{label.value!r} names no point"
    if label.point is None:
        return f"{what}: found no model_index, expected the place of a point in the model's output"
    if not label.predicted_values:
        return f"{what}: found no predicted_values, expected the class whose point it is"
    wanted = label.predicted_values
    known = {label_config.plain(name) for name in names}
    if any(label_config.plain(name) in known for name in wanted):
        return f"{what}: another label has point {label.point} already"
    return f"{what}: no class is called {wanted[0]!r}{nearest(wanted[0], names)}"


def _numbers(control: Control) -> tuple[float, float]:
    """The lowest score of a point, 0 to 1, and how large it is drawn, in pixels."""
    lowest, size = (
        control.number("model_point_threshold", 0, 1),
        control.number("model_point_size", 0),
    )
    return lowest or 0.0, POINT_SIZE if size is None else size


def _boxes(control: Control) -> str | None:
    return f"{control.from_name}_bbox" if control.flag("model_add_bboxes", True) else None


CONTROL = ControlType(
    "KeyPointLabels",
    "Image",
    # A tool for clicks is no control for points of bodies.
    lambda control: () if control.flag("smartonly") else (Keypoints,),
    regions,
    unlabelled="KeyPoint",
    match=match,
    check=_numbers,
    boxes=_boxes,
)
