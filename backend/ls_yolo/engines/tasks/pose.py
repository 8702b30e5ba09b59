"""pose: the points of each object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ls_yolo.engines.letterbox import Geometry
from ls_yolo.engines.tasks.base import Candidates, Floats, Objects
from ls_yolo.results import Boxes, Keypoints


class Pose(Objects):
    """See `engines.tasks.base.Objects`; there are two or three values more for each point: x and y
    in pixels of the input, and a score, 0 to 1."""

    def _more(self, outputs: Sequence[Any]) -> int:
        points, values = self._points
        return points * values

    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> Keypoints:
        kept, xyxy = self._kept(found, iou)
        boxes = Boxes(geometry.back(xyxy), kept.scores, kept.classes)
        points = kept.more.reshape(-1, *self._points)
        scores = points[..., 2] if points.shape[2] > 2 else np.ones(points.shape[:2], np.float32)
        return Keypoints(boxes, geometry.inside(points[..., :2]), scores)
