"""Labeling configs made of the classes of models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lxml import etree

from ls_yolo.projects.backend import ApplyError
from ls_yolo.text import nearest, some

CONTROLS = {
    "rectangle": "RectangleLabels",
    "obb": "RectangleLabels",
    "polygon": "PolygonLabels",
    "brush": "BrushLabels",
    "bitmask": "BitmaskLabels",
    "ellipse": "EllipseLabels",
    "choices": "Choices",
}
"""What a file calls a control, and the tag that Label Studio has for it."""

OF_TASK = {
    "detect": "rectangle",
    "segment": "polygon",
    "semantic": "polygon",
    "obb": "obb",
    "pose": "rectangle",
    "classify": "choices",
}
"""The control that fits a model's task, as ultralytics calls it."""

PALETTE = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bfef45",
    "#469990", "#9a6324", "#800000", "#808000", "#000075", "#fabed4", "#aaffc3", "#dcbeff",
    "#ffd8b1", "#42d4f4", "#a9a9a9", "#ffe119",
)  # fmt: skip
"""Colours that people tell apart: https://sashamaps.net/docs/resources/20-colors/"""


@dataclass(frozen=True)
class FromModel:
    """How a labeling config is made. ``control``: a name of `CONTROLS`, empty for what fits the
    models' task; ``classes``: which become labels, empty for all; ``score_threshold``: 0 to 1."""

    control: str = ""
    classes: tuple[str, ...] = ()
    score_threshold: float | None = None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> FromModel:
        """As a file says."""
        classes = tuple(data.get("classes", ()))
        return cls(data.get("control", ""), classes, data.get("score_threshold"))


def label_config(made: FromModel, models: Sequence[str], known: Sequence[Mapping[str, Any]]) -> str:
    """The labeling config for the classes of ``models``, none: the default model.

    Args:
        made: how.
        models: names of models.
        known: what the backend says of its models: ``name``, ``task``, ``classes``, ``default``.

    Raises:
        ApplyError: there is no such model or class, or the model has not said its classes.
    """
    # A class of one's own is alone, and does not say it.
    usual = [str(row["name"]) for row in known if row.get("default")] or [
        str(row["name"]) for row in known[:1]
    ]
    rows = [_row(name, known) for name in models or usual]
    rows = [row for row in rows if row.get("classes")]
    if not rows:
        raise ApplyError(
            "label_config: found no classes of the models, expected at least one; a model says its "
            "classes once it is loaded, and a SAM or a model.py has none: write the labels out"
        )
    classes = list(dict.fromkeys(name for row in rows for name in row["classes"]))
    for name in made.classes:
        if name not in classes:
            raise ApplyError(
                f"label_config: classes: no class is called {name!r}{nearest(name, classes)}; "
                f"there is: {some(classes)}"
            )
    control = made.control or OF_TASK.get(str(rows[0].get("task")), "rectangle")
    return render(control, made.classes or classes, made.score_threshold)


def render(control: str, classes: Sequence[str], score_threshold: float | None = None) -> str:
    """The XML of a labeling config for images, with one control and a label for each class."""
    view = etree.Element("View")
    etree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    attributes = {"name": "label", "toName": "image"}
    if control == "obb":
        attributes |= {"model_obb": "true", "canRotate": "true"}
    if control == "choices":
        attributes |= {"choice": "single-radio"}
    if score_threshold is not None:
        attributes |= {"model_score_threshold": f"{score_threshold:g}"}
    tag = etree.SubElement(view, CONTROLS[control], attributes)
    for name, color in zip(classes, colors(classes), strict=True):
        if control == "choices":
            etree.SubElement(tag, "Choice", value=name)
        else:
            etree.SubElement(tag, "Label", value=name, background=color)
    etree.indent(view)
    text: str = etree.tostring(view, encoding="unicode")
    return text


def colors(names: Sequence[str]) -> list[str]:
    """A colour for each name: the same in every project, unless two of one project fall together;
    then the later one has the next that is free."""
    given: dict[str, str] = {}
    for name in names:
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        turns = (PALETTE[(start + step) % len(PALETTE)] for step in range(len(PALETTE)))
        # Those of a large model repeat.
        free = next((color for color in turns if color not in given.values()), None)
        given[name] = free or PALETTE[start % len(PALETTE)]
    return [given[name] for name in names]


def _row(name: str, known: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    names = [str(row["name"]) for row in known]
    for row in known:
        if row["name"] == name:
            if row.get("error") and not row.get("classes"):
                raise ApplyError(f"label_config: model {name}: {row['error']}")
            return row
    raise ApplyError(
        f"label_config: the backend has no model {name!r}{nearest(name, names)}; "
        f"there is: {some(names)}"
    )
