"""What is seen twice is one. Pure geometry, no I/O."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo.results import Boxes, Indices


def groups(
    boxes: Boxes,
    least: float,
    smaller: bool,
    parts: Indices | None = None,
    turned: npt.NDArray[np.float32] | None = None,
) -> list[list[int]]:
    """Which boxes are one: the best first in each group, and the best group first.

    A box joins the best one of its class that it shares more than ``least`` with, 0 to 1: of the
    smaller one's area with ``smaller``, else of the area of both together (IoU).

    parts: which part each box is of, shape (n,); boxes of one part never join each other.
    turned: the boxes themselves where ``boxes`` are their bounds, shape (n, 5), as
        `results.OrientedBoxes` has them.
    """
    left, top, right, bottom = boxes.xyxy.T
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    if turned is not None:
        area = turned[:, 2] * turned[:, 3]
    free = np.ones(len(area), np.bool_)
    found = []
    for best in np.argsort(-boxes.scores, kind="stable").tolist():
        if not free[best]:
            continue
        free[best] = False
        other = free & (boxes.classes == boxes.classes[best])
        if parts is not None:
            other &= parts != parts[best]
        rest = np.flatnonzero(other)
        width = np.minimum(right[rest], right[best]) - np.maximum(left[rest], left[best])
        height = np.minimum(bottom[rest], bottom[best]) - np.maximum(top[rest], top[best])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        if turned is not None:
            for place in np.flatnonzero(shared).tolist():
                shared[place] = _shared(turned[best], turned[rest[place]])
        lesser = np.minimum(area[rest], area[best])
        same = rest[shared > least * (lesser if smaller else area[rest] + area[best] - shared)]
        free[same] = False
        found.append([best, *same.tolist()])
    return found


def _shared(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The area that two turned boxes share."""

    def corners(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        x, y, width, height, turn = box.tolist()
        found = cv2.boxPoints(((x, y), (width, height), math.degrees(turn)))
        return np.asarray(found, np.float32)

    area, _ = cv2.intersectConvexConvex(corners(one), corners(other))
    return float(area)


def kept(
    parts: Sequence[Boxes], labels: Sequence[Mapping[int, str]], least: float
) -> list[Indices]:
    """Which objects of each model stay, where of two with the same label whose bounds share more
    than ``least`` (IoU, 0 to 1) the one with the higher score does.

    parts: the bounds of what each model says of an image.
    labels: of each part, its class index to label; objects of other classes go.
    """
    number = {label: i for i, label in enumerate(sorted({n for of in labels for n in of.values()}))}
    named = []
    for part, of in zip(parts, labels, strict=True):
        classes = [number[of[index]] if index in of else -1 for index in part.classes.tolist()]
        named.append(part.with_classes(np.array(classes, np.int64)))
    together = Boxes.joined(named)
    best = np.array([group[0] for group in groups(together, least, smaller=False)], np.int64)
    best = np.sort(best[together.classes[best] >= 0])
    ends = np.cumsum([0, *(len(part.classes) for part in parts)])
    return [
        best[(best >= start) & (best < end)] - start
        for start, end in itertools.pairwise(ends.tolist())
    ]
