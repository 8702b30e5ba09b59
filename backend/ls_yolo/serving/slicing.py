"""Large images in slices: small objects are found at full resolution. Pure geometry, no I/O.

The rule is that of sahi (https://github.com/obss/sahi): slices that overlap by a fifth beside the
whole image, and of what is found twice one is left, where the smaller of two objects of a class, of
different slices, is covered by more than half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.results import Boxes, MakeMask, Mask, Masks, Objects, OrientedBoxes
from ls_yolo.serving import merging

OVERLAP = 0.2
"""How much of its side a slice shares with the next, 0 to 1."""
MOST = 256
"""The most slices of an image: each takes as long as an image."""
COVERED = 0.5
"""Of two objects of a class that share more of the smaller one than this, 0 to 1, one is left."""

Slice = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the upright image."""


def slices(width: int, height: int, side: int, overlap: float = OVERLAP) -> list[Slice]:
    """The slices of an image of ``width`` x ``height`` pixels, row by row.

    side: of a slice, in pixels; one at the far edge begins earlier rather than being smaller. None
        where the image is no larger than a slice in either direction.
    """
    if width <= side and height <= side:
        return []
    step = max(round(side * (1 - overlap)), 1)
    return [
        (left, top, min(left + side, width), min(top + side, height))
        for top in _starts(height, side, step)
        for left in _starts(width, side, step)
    ]


def _starts(length: int, side: int, step: int) -> list[int]:
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def made(found: Objects) -> Objects:
    """``found`` with masks that are there already: what they are made of is much larger, and there
    is one of it for each slice."""
    if not isinstance(found, Masks):
        return found
    ready = [make() for make in found.masks]
    return Masks(found.boxes, [lambda mask=mask: mask for mask in ready])  # type: ignore[misc]


def merged(parts: Sequence[Objects]) -> Objects:
    """The objects of all ``parts``, in pixels of the same image; what is in several of them is one.

    Objects of one part stay apart: the model itself has told them from each other. Of two that are
    one the better score, its class and its place stay. Boxes and masks grow by what the other adds,
    since each slice sees only a part of what lies across its edge; turned boxes and bodies do not,
    as two of them make none.
    """
    kind: Any = type(parts[0])  # of all of them: a model says one kind of thing
    found = kind.joined(parts)
    boxes = found.boxes
    number = np.repeat(np.arange(len(parts)), [len(part.boxes.scores) for part in parts])
    turned = found.xywhr if isinstance(found, OrientedBoxes) else None
    groups = merging.groups(boxes, COVERED, smaller=True, parts=number, turned=turned)
    kept: Objects = found.take(np.array([group[0] for group in groups], np.int64))
    if isinstance(kept, Boxes):
        return Boxes(_bounds(boxes, groups), kept.scores, kept.classes)
    if isinstance(kept, Masks):
        grown = Boxes(_bounds(boxes, groups), kept.boxes.scores, kept.boxes.classes)
        return Masks(grown, [_united([found.masks[i] for i in group]) for group in groups])
    return kept


def _bounds(boxes: Boxes, groups: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    found = np.empty((len(groups), 4), np.float32)
    for row, group in zip(found, groups, strict=True):
        row[:2] = boxes.xyxy[group, :2].min(axis=0)
        row[2:] = boxes.xyxy[group, 2:].max(axis=0)
    return found


def _united(parts: Sequence[MakeMask]) -> MakeMask:
    return parts[0] if len(parts) == 1 else lambda: Mask.united([make() for make in parts])
