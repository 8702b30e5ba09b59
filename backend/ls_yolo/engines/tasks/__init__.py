"""What engines do with a network's output: a file a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ls_yolo.engines.base import EngineError
from ls_yolo.engines.letterbox import Geometry
from ls_yolo.engines.tasks.detect import Detect
from ls_yolo.results import Result


class Task(Protocol):
    """From a network's output to results.

    conf, iou: see `engines.base.Engine.predict`.
    end2end: whether the network itself leaves no doubles.
    """

    def result(
        self,
        output: npt.NDArray[np.float32],
        geometry: Geometry,
        conf: float,
        iou: float,
        end2end: bool,
    ) -> Result:
        """That of one image. output: what the network says of it."""

    def results(
        self, output: Any, geometries: Sequence[Geometry], conf: float, iou: float, end2end: bool
    ) -> Sequence[Result]:
        """Those of a batch. output: a tensor of torch, on whatever device, an item an image."""


TASKS: Mapping[str, Task] = {"detect": Detect()}
"""The tasks that engines do, as ultralytics calls them."""


def find(name: str, file: str) -> Task:
    """The task ``name`` of the weights ``file``.

    Raises:
        EngineError: engines do not do it.
    """
    if name not in TASKS:
        raise EngineError(
            f"{file}: found a model for {name!r}, expected {' or '.join(map(repr, TASKS))}"
        )
    return TASKS[name]
