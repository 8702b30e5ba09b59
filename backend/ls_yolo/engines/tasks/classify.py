"""classify: what the image as a whole is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ls_yolo.engines.letterbox import Fit, Geometry
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.base import Floats
from ls_yolo.results import Classes


class Classify:
    """See `engines.tasks.base.Task`. An image's output has the score of each class."""

    way: Fit = "crop"

    def __init__(self, network: Network) -> None:
        pass

    def result(
        self, outputs: Sequence[Floats], geometry: Geometry, conf: float, iou: float
    ) -> Classes:
        return Classes(outputs[0].astype(np.float32))

    def results(
        self, outputs: Sequence[Any], geometries: Sequence[Geometry], conf: float, iou: float
    ) -> list[Classes]:
        return [Classes(scores) for scores in outputs[0].float().cpu().numpy().copy()]
