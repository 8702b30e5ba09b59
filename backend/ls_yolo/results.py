"""Results: what engines make and controls draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""An upright image, shape (height, width, 3), channels blue, green, red, values 0 to 255."""
Indices = npt.NDArray[np.int64]
"""Shape (k,): which objects of a result."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of one image (detect), highest score first.

    xyxy: float32, shape (n, 4): left, top, right, bottom in pixels of the upright image.
    scores: float32, shape (n,): 0 to 1.
    classes: int64, shape (n,): class indices of the model.
    """

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> Boxes:
        """Those of an image with nothing on it."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @property
    def boxes(self) -> Boxes:
        """The upright bounds of each object."""
        return self

    def take(self, indices: Indices) -> Boxes:
        """Those objects, in that order."""
        return Boxes(self.xyxy[indices], self.scores[indices], self.classes[indices])

    def moved(self, left: int, top: int) -> Boxes:
        """The same in an image that this one was cut out of at ``left``, ``top``, in pixels."""
        offset = np.array([left, top, left, top], np.float32)
        return replace(self, xyxy=self.xyxy + offset)

    def with_classes(self, classes: npt.NDArray[np.int64]) -> Boxes:
        """The same objects under other class indices, shape (n,)."""
        return replace(self, classes=classes)

    @classmethod
    def joined(cls, parts: Sequence[Boxes]) -> Boxes:
        """The objects of all parts, one part after the other."""
        return _joined(cls, parts)

    def above(self, score: float) -> Boxes:
        """Those whose score exceeds ``score``, 0 to 1: the rule of `Engine.predict`."""
        return self.take(np.flatnonzero(self.scores > score))


@dataclass(frozen=True, slots=True)
class Mask:
    """The pixels of an object, cut out of the image: a whole one for each object of a large image
    would be gigabytes.

    left, top: where the cut begins, in pixels of the upright image, from 0.
    pixels: bool, shape (height, width) of the cut, which lies inside the image; may be empty.
    """

    left: int
    top: int
    pixels: npt.NDArray[np.bool_]

    @classmethod
    def united(cls, parts: Sequence[Mask]) -> Mask:
        """What is in any of the parts, of which there is at least one."""
        left, top = (min(getattr(part, edge) for part in parts) for edge in ("left", "top"))
        right = max(part.left + part.pixels.shape[1] for part in parts)
        bottom = max(part.top + part.pixels.shape[0] for part in parts)
        pixels = np.zeros((bottom - top, right - left), np.bool_)
        for part in parts:
            height, width = part.pixels.shape
            y, x = part.top - top, part.left - left
            pixels[y : y + height, x : x + width] |= part.pixels
        return cls(left, top, pixels)


MakeMask = Callable[[], Mask]


@dataclass(frozen=True, slots=True)
class Masks:
    """The outlined objects of one image (segment), or the area of each class (semantic), highest
    score first.

    boxes: n of them.
    masks: n functions, each of which makes the mask of its box: in the threads that draw it, not in
        the one that the model waits for. Any thread may call them.
    """

    boxes: Boxes
    masks: Sequence[MakeMask]

    def take(self, indices: Indices) -> Masks:
        """Those objects, in that order."""
        return Masks(self.boxes.take(indices), [self.masks[index] for index in indices.tolist()])

    def moved(self, left: int, top: int) -> Masks:
        """The same in an image that this one was cut out of at ``left``, ``top``, in pixels."""

        def move(make: MakeMask) -> MakeMask:
            def moved() -> Mask:
                mask = make()
                return replace(mask, left=mask.left + left, top=mask.top + top)

            return moved

        return Masks(self.boxes.moved(left, top), [move(make) for make in self.masks])

    def with_classes(self, classes: npt.NDArray[np.int64]) -> Masks:
        """The same objects under other class indices, shape (n,)."""
        return replace(self, boxes=self.boxes.with_classes(classes))

    @classmethod
    def joined(cls, parts: Sequence[Masks]) -> Masks:
        """The objects of all parts, one part after the other."""
        masks = [make for part in parts for make in part.masks]
        return cls(Boxes.joined([part.boxes for part in parts]), masks)

    def above(self, score: float) -> Masks:
        """Those whose score exceeds ``score``, 0 to 1."""
        return self.take(np.flatnonzero(self.boxes.scores > score))


@dataclass(frozen=True, slots=True)
class OrientedBoxes:
    """The turned boxes of one image (obb), highest score first.

    xywhr: float32, shape (n, 5): centre, width and height in pixels of the upright image before the
        box is turned, then by how much, in radians, clockwise as one sees it.
    scores: float32, shape (n,): 0 to 1.
    classes: int64, shape (n,): class indices of the model.
    """

    xywhr: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    @property
    def boxes(self) -> Boxes:
        """The upright bounds of each object."""
        x, y, width, height, turn = self.xywhr.T
        cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
        across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
        xyxy = np.stack([x - across, y - down, x + across, y + down], axis=1)
        return Boxes(xyxy.astype(np.float32), self.scores, self.classes)

    def take(self, indices: Indices) -> OrientedBoxes:
        """Those objects, in that order."""
        return OrientedBoxes(self.xywhr[indices], self.scores[indices], self.classes[indices])

    def moved(self, left: int, top: int) -> OrientedBoxes:
        """The same in an image that this one was cut out of at ``left``, ``top``, in pixels."""
        return replace(self, xywhr=self.xywhr + np.array([left, top, 0, 0, 0], np.float32))

    def with_classes(self, classes: npt.NDArray[np.int64]) -> OrientedBoxes:
        """The same objects under other class indices, shape (n,)."""
        return replace(self, classes=classes)

    @classmethod
    def joined(cls, parts: Sequence[OrientedBoxes]) -> OrientedBoxes:
        """The objects of all parts, one part after the other."""
        return _joined(cls, parts)

    def above(self, score: float) -> OrientedBoxes:
        """Those whose score exceeds ``score``, 0 to 1."""
        return self.take(np.flatnonzero(self.scores > score))


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The bodies of one image and their points (pose), highest score first.

    boxes: n of them.
    xy: float32, shape (n, k, 2), in pixels of the upright image; k is the model's own.
    scores: float32, shape (n, k): 0 to 1, how surely each point is seen; 1 where the model does not
        say.
    """

    boxes: Boxes
    xy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def take(self, indices: Indices) -> Keypoints:
        """Those objects, in that order."""
        return Keypoints(self.boxes.take(indices), self.xy[indices], self.scores[indices])

    def moved(self, left: int, top: int) -> Keypoints:
        """The same in an image that this one was cut out of at ``left``, ``top``, in pixels."""
        offset = np.array([left, top], np.float32)
        return replace(self, boxes=self.boxes.moved(left, top), xy=self.xy + offset)

    def with_classes(self, classes: npt.NDArray[np.int64]) -> Keypoints:
        """The same objects under other class indices, shape (n,)."""
        return replace(self, boxes=self.boxes.with_classes(classes))

    @classmethod
    def joined(cls, parts: Sequence[Keypoints]) -> Keypoints:
        """The objects of all parts, of the same number of points each, one part after the other."""
        return cls(
            Boxes.joined([part.boxes for part in parts]),
            np.concatenate([part.xy for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def above(self, score: float) -> Keypoints:
        """Those whose box has a score that exceeds ``score``, 0 to 1."""
        return self.take(np.flatnonzero(self.boxes.scores > score))


@dataclass(frozen=True, slots=True)
class Classes:
    """What one image as a whole is taken for (classify).

    scores: float32, shape (classes of the model,): 0 to 1, together 1.
    """

    scores: npt.NDArray[np.float32]

    def above(self, score: float) -> Classes:
        """Itself: of an image as a whole every class is an answer, however low its score."""
        return self


Objects = Boxes | Masks | OrientedBoxes | Keypoints
"""Objects on an image."""
Result = Objects | Classes
"""What a model says of one image."""

RESULTS: Mapping[str, type] = {
    "detect": Boxes,
    "segment": Masks,
    "semantic": Masks,
    "obb": OrientedBoxes,
    "pose": Keypoints,
    "classify": Classes,
}
"""Task, as ultralytics calls it, to what a model for it says."""

_T = TypeVar("_T", Boxes, OrientedBoxes)


def _joined(cls: type[_T], parts: Sequence[Any]) -> _T:
    """The fields of ``parts``, arrays all, one after the other."""
    return cls(
        *(np.concatenate([getattr(part, field) for part in parts]) for field in cls.__slots__)
    )
