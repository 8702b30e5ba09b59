"""Non-maximum suppression as ultralytics does it, without torch.

In float32 and in the same order, so that the same boxes are kept.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ls_yolo.engines.letterbox import MAX_BOXES

MAX_CANDIDATES = 30_000
"""The most that are compared with each other; the best ones."""
CLASS_OFFSET = 7680
"""Boxes of unlike classes are moved apart by so many pixels, so that none hides another."""
BLOCK = 256
"""So many turned boxes are compared with all better ones at a time, which bounds the memory."""
EPSILON = np.float32(1e-7)

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def upright(xyxy: Floats, scores: Floats, classes: Indices, iou: float) -> Indices:
    """The indices of the boxes that stay, best first, at most `MAX_BOXES`.

    xyxy: shape (n, 4), in pixels. scores, classes: shape (n,).
    iou: of two boxes of a class that overlap by more, 0 to 1, that with the higher score stays.
    """
    order = _best(scores)
    offset = (classes[order] * CLASS_OFFSET).astype(np.float32)
    return order[_greedy(xyxy[order] + offset[:, None], iou)]


def turned(xywhr: Floats, scores: Floats, classes: Indices, iou: float) -> Indices:
    """As `upright`, of turned boxes: centre, width, height in pixels, angle in radians; (n, 5).

    How far two overlap is told by normal distributions in their place, and a box hides worse ones
    even where it is hidden itself: so does ultralytics.
    """
    order = _best(scores)
    boxes, kinds = xywhr[order], classes[order]
    keep: list[int] = []
    for first in range(0, len(order), BLOCK):
        last = min(first + BLOCK, len(order))
        overlap = _probiou(boxes[first:last], boxes[:last])
        better = np.arange(last) < np.arange(first, last)[:, None]
        same = kinds[first:last, None] == kinds[:last]
        hidden = ((overlap > iou) & better & same).any(axis=1)
        keep += (first + np.flatnonzero(~hidden)).tolist()
        if len(keep) >= MAX_BOXES:
            break
    return order[np.array(keep[:MAX_BOXES], np.int64)]


def _best(scores: Floats) -> Indices:
    order: Indices = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    return order


def _greedy(xyxy: Floats, iou: float) -> Indices:
    """Indices of the boxes that no earlier kept one overlaps by more than ``iou``; (n, 4)."""
    # Each edge in a row of its own: contiguous, which is twice as fast for a few boxes.
    left, top, right, bottom = np.ascontiguousarray(xyxy.T)
    area = (right - left) * (bottom - top)
    # The limit in double precision, as torchvision compares.
    zero, limit = np.float32(0), np.float64(iou)
    rest: Indices = np.arange(len(xyxy))
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


def _probiou(one: Floats, other: Floats) -> Floats:
    """How far turned boxes overlap, 0 to 1: one less the Hellinger distance of the normal
    distributions that have their centres and spreads (arXiv 2106.06072). (n, 5), (m, 5): (n, m).
    """
    first, second = _spread(one), _spread(other)
    a, b, c = (part[:, None] + more for part, more in zip(first, second, strict=True))
    x = one[:, None, 0] - other[None, :, 0]
    y = one[:, None, 1] - other[None, :, 1]
    joint = a * b - c * c
    apart = (a * y * y + b * x * x) / (joint + EPSILON) / 4 - c * x * y / (joint + EPSILON) / 2
    each, every = (np.maximum(s * t - u * u, np.float32(0)) for s, t, u in (first, second))
    ratio = joint / (4 * np.sqrt(each[:, None] * every) + EPSILON) + EPSILON
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distance = np.clip(apart + np.log(ratio) / 2, EPSILON, np.float32(100))
    found: Floats = 1 - np.sqrt(1 - np.exp(-distance) + EPSILON)
    return found


def _spread(xywhr: Floats) -> tuple[Floats, Floats, Floats]:
    """Of the distributions of turned boxes the variances along x and y, and the covariance."""
    along, across = (xywhr[:, 2] ** 2 / 12, xywhr[:, 3] ** 2 / 12)
    cosine, sine = np.cos(xywhr[:, 4]), np.sin(xywhr[:, 4])
    return (
        along * cosine**2 + across * sine**2,
        along * sine**2 + across * cosine**2,
        (along - across) * cosine * sine,
    )
