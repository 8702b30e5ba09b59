"""BrushLabels: masks, pixel by pixel, as Label Studio's run lengths."""

from __future__ import annotations

from ls_yolo.controls import rle
from ls_yolo.controls.base import ControlType, Region, Target, drawn_masks, region
from ls_yolo.results import Masks


def regions(target: Target, result: Masks) -> list[Region]:
    """A region for each mask of ``result`` with a pixel.

    https://labelstud.io/tags/brushlabels
    """
    found = []
    for mask, index, score in drawn_masks(target, result):
        painted = rle.encode(mask, target.width, target.height)
        found += region(target, {"format": "rle", "rle": painted}, index, score)
    return found


CONTROL = ControlType("BrushLabels", "Image", lambda _: (Masks,), regions, unlabelled="Brush")
