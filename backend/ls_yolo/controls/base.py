"""What a control declares of itself, and what regions have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ls_yolo.labelstudio.label_config import Control

Region = dict[str, Any]
"""A region as Label Studio stores it in the ``result`` of a prediction."""


@dataclass(frozen=True)
class Target:
    """What regions are made for: a control on an image.

    labels: class index to label, of those classes that the control has a label for.
    names: class index to class name, of all classes of the model.
    width, height: of the upright image, in pixels.
    controls: all controls of the labeling config that are on the same object, by name.
    """

    control: Control
    labels: Mapping[int, str]
    names: Mapping[int, str]
    width: int
    height: int
    controls: Mapping[str, Control] = field(default_factory=dict)


Encode = Callable[[Target, Any], list[Region]]
"""(target, result) to regions."""


@dataclass(frozen=True)
class ControlType:
    """A control that predictions are drawn for.

    tag, object_tag: as Label Studio writes them, such as ``RectangleLabels`` and ``Image``.
    draws: the result types that ``encode`` takes for a control, by its attributes.
    """

    tag: str
    object_tag: str
    draws: Callable[[Control], tuple[type, ...]]
    encode: Encode


def region(
    target: Target, shape: str, geometry: Mapping[str, Any], index: int, score: float
) -> list[Region]:
    """The region of an object, in a list: empty where its class has no label, or where the score is
    no number, which Label Studio would not take.

    shape: what the control draws, as Label Studio calls it: ``rectangle``, ``polygon``.
    geometry: its place, in Label Studio's terms.
    index: the class. score: clipped to 0 to 1.
    """
    label = target.labels.get(index)
    if label is None or math.isnan(score):
        return []
    kind = f"{shape}labels"
    return [
        {
            "from_name": target.control.from_name,
            "to_name": target.control.to_name,
            "type": kind,
            "original_width": target.width,
            "original_height": target.height,
            "image_rotation": 0,
            "score": min(max(score, 0.0), 1.0),
            "value": {**geometry, kind: [label]},
        }
    ]


def percent(edge: float, size: int) -> float:
    """A coordinate in pixels, clipped to an image's side of ``size`` pixels, in per cent of it."""
    return min(max(edge, 0.0), float(size)) / size * 100.0
