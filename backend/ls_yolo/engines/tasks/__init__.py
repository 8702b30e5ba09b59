"""What engines do with a network's outputs: a file a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ls_yolo.engines.base import EngineError
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.base import Task
from ls_yolo.engines.tasks.classify import Classify
from ls_yolo.engines.tasks.detect import Detect, Transformer
from ls_yolo.engines.tasks.obb import Oriented
from ls_yolo.engines.tasks.pose import Pose
from ls_yolo.engines.tasks.segment import Segment
from ls_yolo.engines.tasks.semantic import Semantic

TASKS: Mapping[str, Callable[[Network], Task]] = {
    "detect": lambda network: (Transformer if network.transformer else Detect)(network),
    "segment": Segment,
    "semantic": Semantic,
    "obb": Oriented,
    "pose": Pose,
    "classify": Classify,
}
"""The tasks that engines do, as ultralytics calls them."""


def find(network: Network, file: str) -> Task:
    """The task of ``network``, whose weights are ``file``.

    Raises:
        EngineError: engines do not do it.
    """
    if network.task not in TASKS:
        raise EngineError(
            f"{file}: found a model for {network.task!r}, expected one for "
            f"{', '.join(TASKS)}; nothing else can be drawn"
        )
    return TASKS[network.task](network)
