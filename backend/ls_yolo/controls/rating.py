"""Rating: how many objects of the classes in ``model_count`` are in the image, as stars."""

from __future__ import annotations

from ls_yolo.controls import count
from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio.label_config import Control

MOST = 5
"""Stars, where the control does not say."""


def _join(control: Control, regions: list[Region]) -> list[Region]:
    found = count.joined(control, regions, 0, _most(control))
    # No star is no rating: the page stores none.
    return [region for region in found if region["value"]["rating"]]


def _most(control: Control) -> int:
    most = control.number("maxrating", 1)
    return MOST if most is None else int(most)


CONTROL = ControlType("Rating", "Image", count.draws, count.regions, join=_join, check=_most)
"""``maxRating`` at most.
https://labelstud.io/tags/rating"""
