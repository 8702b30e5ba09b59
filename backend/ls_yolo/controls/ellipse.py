"""EllipseLabels: of each mask the ellipse with its centre, its spread and its direction."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ls_yolo.controls.base import ControlType, Region, Target, drawn_masks, region, taken
from ls_yolo.results import Mask, Masks


def regions(target: Target, result: Masks) -> list[Region]:
    """An ellipse for each mask of ``result`` with a pixel.

    ``x`` and ``y`` are its centre, about which it is turned clockwise by ``rotation`` degrees, 0 to
    360; they are 0 to 100, ``radiusX`` and ``radiusY`` 0 to 50.
    https://labelstud.io/tags/ellipselabels
    """
    names = "x", "y", "radiusX", "radiusY", "rotation"
    sizes = (target.width, target.height) * 2
    found = []
    for mask, index, score in drawn_masks(target, result):
        x, y, long, short, angle = moments(mask)
        # Turned by a right angle, with its radii exchanged, it is the same.
        forms = [
            (*(v / size * 100 for v, size in zip(place, sizes, strict=True)), math.degrees(turn))
            for place, turn in (
                ((x, y, long, short), angle),
                ((x, y, long, short), angle + math.pi),
                ((x, y, short, long), angle + math.pi / 2),
                ((x, y, short, long), angle - math.pi / 2),
            )
        ]
        place = dict(zip(names, taken(forms, (100.0, 100.0, 50.0, 50.0)), strict=True))
        found += region(target, place, index, score)
    return found


def moments(mask: Mask) -> tuple[float, float, float, float, float]:
    """Centre, longer and shorter radius in pixels of the image, and the longer one's direction in
    radians, clockwise from the right, of the ellipse whose first and second moments are those of
    ``mask``, which has a pixel."""
    found = cv2.moments(mask.pixels.view(np.uint8), binaryImage=True)
    count = found["m00"]
    # Each pixel is a square, not a point: it has a spread of its own.
    xx, yy = found["mu20"] / count + 1 / 12, found["mu02"] / count + 1 / 12
    xy = found["mu11"] / count
    mean, half = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
    return (
        mask.left + found["m10"] / count + 0.5,
        mask.top + found["m01"] / count + 0.5,
        2 * math.sqrt(mean + half),
        2 * math.sqrt(max(mean - half, 0.0)),
        math.atan2(2 * xy, xx - yy) / 2,
    )


CONTROL = ControlType("EllipseLabels", "Image", lambda _: (Masks,), regions, unlabelled="Ellipse")
