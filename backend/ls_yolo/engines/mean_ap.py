"""How well the boxes of one model agree with another's: mean average precision, as COCO has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ls_yolo.results import Boxes

OVERLAPS = tuple(np.linspace(0.5, 0.95, 10))
"""How much a box must overlap with a true one to be right; the mean is taken over these."""
RECALLS = np.linspace(0, 1, 101)
"""Where precision is read off."""

Floats = npt.NDArray[np.float64]


def mean_average_precision(truth: Sequence[Boxes], found: Sequence[Boxes]) -> float:
    """0 to 1, over all classes of ``truth``; 1 where ``truth`` has no box.

    Both have an item for each image. Scores of ``truth`` do not count, those of ``found`` rank.
    """
    classes = {int(index) for boxes in truth for index in boxes.classes}
    found_precision = [
        _average_precision([_of(b, index) for b in truth], [_of(b, index) for b in found])
        for index in sorted(classes)
    ]
    return float(np.mean(found_precision)) if found_precision else 1.0


def _of(boxes: Boxes, index: int) -> Boxes:
    keep = boxes.classes == index
    order = np.argsort(-boxes.scores[keep], kind="stable")
    return Boxes(*(part[keep][order] for part in (boxes.xyxy, boxes.scores, boxes.classes)))


def _average_precision(truth: Sequence[Boxes], found: Sequence[Boxes]) -> float:
    """The mean over `OVERLAPS` for one class."""
    right = np.concatenate([_right(t.xyxy, f.xyxy) for t, f in zip(truth, found, strict=True)])
    scores = np.concatenate([boxes.scores for boxes in found])
    right = right[np.argsort(-scores, kind="stable")]
    if not len(right):
        return 0.0
    hits = np.cumsum(right, axis=0)
    recall: Floats = hits / sum(len(boxes.scores) for boxes in truth)
    precision: Floats = hits / np.arange(1, len(right) + 1)[:, None]
    # At each recall the best precision that is to be had with it or more.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    precision = np.concatenate([precision, np.zeros((1, len(OVERLAPS)))])
    means = [
        precision[np.searchsorted(recall[:, column], RECALLS - 1e-9), column].mean()
        for column in range(len(OVERLAPS))
    ]
    return float(np.mean(means))


def _right(truth: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """For each of ``found``, best first, and each of `OVERLAPS`: whether it hits a true box that no
    better one has hit. Shape (n, len(OVERLAPS)); boxes have the shape (n, 4)."""
    right = np.zeros((len(found), len(OVERLAPS)), bool)
    overlap = overlaps(found, truth)
    for column, least in enumerate(OVERLAPS):
        free = np.ones(len(truth), bool)
        for row in range(len(found) if len(truth) else 0):
            best = int(np.argmax(np.where(free, overlap[row], -1)))
            if free[best] and overlap[row, best] >= least:
                free[best] = False
                right[row, column] = True
    return right


def overlaps(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Floats:
    """Intersection over union of each box of ``one``, (n, 4), with each of ``other``, (m, 4)."""
    a, b = one[:, None].astype(np.float64), other[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (a, b)]
    union = areas[0] + areas[1] - shared
    found: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found
