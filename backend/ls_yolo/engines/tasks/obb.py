"""obb: turned boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ls_yolo.engines import nms
from ls_yolo.engines.letterbox import Geometry
from ls_yolo.engines.tasks.base import Candidates, Floats, Objects
from ls_yolo.results import OrientedBoxes


class Oriented(Objects):
    """See `engines.tasks.base.Objects`; the box is centre, width, height in any case, and there is
    one value more: its angle in radians, clockwise as one sees it."""

    def _more(self, outputs: Sequence[Any]) -> int:
        return 1

    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> OrientedBoxes:
        xywhr = np.concatenate([found.boxes, found.more], axis=1)
        if not self._end2end:
            keep = nms.turned(xywhr, found.scores, found.classes, iou)
            found, xywhr = found[keep], xywhr[keep]
        sides = xywhr[:, 2:4] * geometry.scale
        made = np.concatenate([geometry.points(xywhr[:, :2]), sides, xywhr[:, 4:]], axis=1)
        return OrientedBoxes(regular(made), found.scores, found.classes)


def regular(xywhr: Floats) -> Floats:
    """The same boxes, each by an angle from 0 to below a quarter turn; shape (n, 5)."""
    quarters, angle = np.divmod(xywhr[:, 4:], np.float32(math.pi / 2))
    odd = quarters % 2 == 1
    sides = np.where(odd, xywhr[:, [3, 2]], xywhr[:, 2:4])
    made: Floats = np.concatenate([xywhr[:, :2], sides, angle], axis=1)
    return made
