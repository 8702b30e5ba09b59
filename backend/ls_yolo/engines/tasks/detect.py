"""detect: upright boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ls_yolo.engines.letterbox import Fit, Geometry
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.base import Candidates, Floats, Objects
from ls_yolo.results import Boxes


class Detect(Objects):
    """See `engines.tasks.base.Objects`; there is nothing more of an object than that."""

    def _more(self, outputs: Sequence[Any]) -> int:
        return 0

    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> Boxes:
        kept, xyxy = self._kept(found, iou)
        return Boxes(geometry.back(xyxy), kept.scores, kept.classes)


class Transformer(Detect):
    """RT-DETR, which leaves no doubles: centre, width and height are parts of the image, 0 to 1."""

    way: Fit = "stretch"

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._end2end = True

    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> Boxes:
        half = found.boxes[:, 2:] / np.float32(2)
        xyxy = np.concatenate([found.boxes[:, :2] - half, found.boxes[:, :2] + half], axis=1)
        height, width = geometry.shape
        side = np.array([width, height] * 2, np.float32)
        return Boxes(geometry.back(xyxy * side), found.scores, found.classes)
