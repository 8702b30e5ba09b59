"""Choices: what an image as a whole is, or what is in it."""

from __future__ import annotations

from ls_yolo.controls import whole
from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Classes, Keypoints, Masks, OrientedBoxes


def _join(control: Control, regions: list[Region]) -> list[Region]:
    many = control.attributes.get("choice", "").strip().lower() == "multiple"
    return whole.joined(control, regions, None if many else 1)


CONTROL = ControlType(
    "Choices",
    "Image",
    lambda _: (Classes, Boxes, Masks, OrientedBoxes, Keypoints),
    whole.regions,
    join=_join,
)
"""``choice="multiple"``: all labels above the threshold; else the surest alone.
https://labelstud.io/tags/choices"""
