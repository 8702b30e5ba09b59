"""What is seen twice is one. Pure geometry, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.results import Boxes, Keypoints, Objects


def groups(boxes: Boxes, least: float, smaller: bool) -> list[list[int]]:
    """Which boxes are one: the best first in each group, and the best group first.

    A box joins the best one of its class that it shares more than ``least`` with, 0 to 1: of the
    smaller one's area with ``smaller``, else of the area of both together (IoU).
    """
    left, top, right, bottom = boxes.xyxy.T
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    free = np.ones(len(area), np.bool_)
    found = []
    for best in np.argsort(-boxes.scores, kind="stable").tolist():
        if not free[best]:
            continue
        free[best] = False
        rest = np.flatnonzero(free & (boxes.classes == boxes.classes[best]))
        width = np.minimum(right[rest], right[best]) - np.maximum(left[rest], left[best])
        height = np.minimum(bottom[rest], bottom[best]) - np.maximum(top[rest], top[best])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        lesser = np.minimum(area[rest], area[best])
        same = rest[shared > least * (lesser if smaller else area[rest] + area[best] - shared)]
        free[same] = False
        found.append([best, *same.tolist()])
    return found


def joined(
    parts: Sequence[Objects], labels: Sequence[Mapping[int, str]], least: float
) -> tuple[Objects, dict[int, str]] | None:
    """What several models say of an image as one result, and its class index to label.

    Of two objects with the same label whose bounds share more than ``least`` (IoU, 0 to 1) the one
    with the higher score stays. None where the models do not say the same kind of thing.

    labels: of each part, its class index to label; objects of other classes are left out.
    """
    kinds = {_kind(part) for part in parts}
    if len(kinds) != 1:
        return None
    names = sorted({label for of_part in labels for label in of_part.values()})
    number = {label: index for index, label in enumerate(names)}
    kind: Any = type(parts[0])
    found = kind.joined(
        [
            _renamed(part, {index: number[label] for index, label in of_part.items()})
            for part, of_part in zip(parts, labels, strict=True)
        ]
    )
    kept = [group[0] for group in groups(found.boxes, least, smaller=False)]
    return found.take(np.array(kept, np.int64)), dict(enumerate(names))


def _kind(part: Objects) -> tuple[object, ...]:
    return (type(part), part.xy.shape[1]) if isinstance(part, Keypoints) else (type(part),)


def _renamed(part: Objects, numbers: Mapping[int, int]) -> Objects:
    classes: npt.NDArray[np.int64] = part.boxes.classes
    kept = part.take(np.flatnonzero(np.isin(classes, list(numbers))))
    names = np.array([numbers[index] for index in kept.boxes.classes.tolist()], np.int64)
    return kept.with_classes(names)
