"""What a control declares of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ls_yolo.labelstudio.label_config import Control

Region = dict[str, Any]
"""A region as Label Studio stores it in the ``result`` of a prediction."""

Encode = Callable[[Control, Any, Mapping[int, str], int, int], list[Region]]
"""(control, result, class index to label, width, height of the image in pixels) to regions."""


@dataclass(frozen=True)
class ControlType:
    """A control that predictions are drawn for.

    ``tag`` and ``object_tag``: as Label Studio writes them, such as ``RectangleLabels`` and
    ``Image``. ``draws``: the result types that ``encode`` takes.
    """

    tag: str
    object_tag: str
    draws: tuple[type, ...]
    encode: Encode
