"""Non-maximum suppression as ultralytics does it, without torch.

In float32 and in the same order, so that the same boxes are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ls_yolo.engines.letterbox import MAX_BOXES, Geometry
from ls_yolo.results import Boxes

MAX_CANDIDATES = 30_000
"""The most that are compared with each other; the best ones."""
CLASS_OFFSET = 7680
"""Boxes of unlike classes are moved apart by so many pixels, so that none hides another."""

Floats = npt.NDArray[np.float32]


def kept(
    xywh: Floats,
    scores: Floats,
    classes: npt.NDArray[np.int64],
    geometry: Geometry,
    iou: float,
) -> Boxes:
    """What is left of candidates, best first.

    xywh: shape (n, 4), centre, width and height in pixels of the input.
    scores, classes: shape (n,).
    iou: of two boxes of a class that overlap by more, 0 to 1, that with the higher score stays.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    xywh, scores, classes = xywh[order], scores[order], classes[order]
    half = xywh[:, 2:] / np.float32(2)
    xyxy: Floats = np.concatenate([xywh[:, :2] - half, xywh[:, :2] + half], axis=1)
    keep = _greedy(xyxy + (classes * CLASS_OFFSET).astype(np.float32)[:, None], iou)
    return Boxes(geometry.back(xyxy[keep]), scores[keep], classes[keep].astype(np.int64))


def _greedy(xyxy: Floats, iou: float) -> npt.NDArray[np.int64]:
    """Indices of the boxes that no earlier kept one overlaps by more than ``iou``; (n, 4)."""
    # Each edge in a row of its own: contiguous, which is twice as fast for a few boxes.
    left, top, right, bottom = np.ascontiguousarray(xyxy.T)
    area = (right - left) * (bottom - top)
    # The limit in double precision, as torchvision compares.
    zero, limit = np.float32(0), np.float64(iou)
    rest: npt.NDArray[np.int64] = np.arange(len(xyxy))
    keep: list[int] = []
    while rest.size and len(keep) < MAX_BOXES:
        best, rest = int(rest[0]), rest[1:]
        keep.append(best)
        width = np.minimum(right[rest], right[best]) - np.maximum(left[rest], left[best])
        height = np.minimum(bottom[rest], bottom[best]) - np.maximum(top[rest], top[best])
        shared = np.maximum(width, zero) * np.maximum(height, zero)
        # Two boxes without an area give 0 / 0; that is no overlap.
        with np.errstate(divide="ignore", invalid="ignore"):
            overlap = shared / (area[rest] + area[best] - shared)
        rest = rest[~(overlap > limit)]
    return np.array(keep, np.int64)


NONE = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
"""No box."""
