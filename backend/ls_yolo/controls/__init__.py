"""Controls: what Label Studio draws, a file a control. Pure geometry, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ls_yolo.controls import rectangle
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes

Region = dict[str, Any]
"""A region as Label Studio stores it in the ``result`` of a prediction."""

Encode = Callable[[Control, Boxes, Mapping[int, str], int, int], list[Region]]
"""(control, boxes, class index to label, width, height of the image in pixels) to regions."""

CONTROLS: Mapping[str, Encode] = {"RectangleLabels": rectangle.regions}
"""The control tags that predictions are drawn for."""
