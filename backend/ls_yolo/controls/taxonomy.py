"""Taxonomy: as Choices, each label with those that it lies in."""

from __future__ import annotations

from ls_yolo.controls import whole
from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Classes, Keypoints, Masks, OrientedBoxes


def _join(control: Control, regions: list[Region]) -> list[Region]:
    most = _most(control)
    return whole.joined(control, regions, None if most is None else int(most))


def _most(control: Control) -> float | None:
    return control.number("maxusages", 1)


CONTROL = ControlType(
    "Taxonomy",
    "Image",
    lambda _: (Classes, Boxes, Masks, OrientedBoxes, Keypoints),
    whole.regions,
    join=_join,
    check=_most,
)
"""All labels above the threshold, ``maxUsages`` at most.
https://labelstud.io/tags/taxonomy"""
