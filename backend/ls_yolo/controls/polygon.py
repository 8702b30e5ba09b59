"""PolygonLabels: the outlines of masks, along the edges of their pixels."""

from __future__ import annotations

from ls_yolo.controls.base import ControlType, Region, Target, drawn_masks, percent, region
from ls_yolo.controls.outline import TOLERANCE, outlines
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Masks


def regions(target: Target, result: Masks) -> list[Region]:
    """A polygon for each part of each mask of ``result``; see `outlines`.

    https://labelstud.io/tags/polygonlabels
    """
    tolerance = _tolerance(target.control)
    found = []
    for mask, index, score in drawn_masks(target, result):
        for outline in outlines(mask, TOLERANCE if tolerance is None else tolerance):
            points = [
                [percent(x, target.width), percent(y, target.height)] for x, y in outline.tolist()
            ]
            found += region(target, {"points": points, "closed": True}, index, score)
    return found


def _tolerance(control: Control) -> float | None:
    return control.number("model_polygon_tolerance", 0)


CONTROL = ControlType(
    "PolygonLabels",
    "Image",
    lambda _: (Masks,),
    regions,
    unlabelled="Polygon",
    check=_tolerance,
)
