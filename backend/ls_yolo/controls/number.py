"""Number: how many objects of the classes in ``model_count`` are in the image."""

from __future__ import annotations

import math

from ls_yolo.controls import count
from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio.label_config import Control


def _join(control: Control, regions: list[Region]) -> list[Region]:
    low, high = _bounds(control)
    return count.joined(control, regions, low, high)


def _bounds(control: Control) -> tuple[float, float]:
    low, high = control.number("min"), control.number("max")
    return -math.inf if low is None else low, math.inf if high is None else high


CONTROL = ControlType("Number", "Image", count.draws, count.regions, join=_join, check=_bounds)
"""Within ``min`` and ``max``: the page lets nobody submit another.
https://labelstud.io/tags/number"""
