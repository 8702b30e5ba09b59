"""Results: what engines make and controls draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""An upright image, shape (height, width, 3), channels blue, green, red, values 0 to 255."""


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

    def above(self, score: float) -> Boxes:
        """Those whose score exceeds ``score``, 0 to 1: the rule of `Engine.predict`."""
        keep = self.scores > score
        return Boxes(self.xyxy[keep], self.scores[keep], self.classes[keep])


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


@dataclass(frozen=True, slots=True)
class Masks:
    """The outlined objects of one image (segment), or the area of each class (semantic), highest
    score first.

    boxes: n of them.
    masks: n functions, each of which makes the mask of its box: in the threads that draw it, not in
        the one that the model waits for. Any thread may call them.
    """

    boxes: Boxes
    masks: Sequence[Callable[[], Mask]]

    def above(self, score: float) -> Masks:
        """Those whose score exceeds ``score``, 0 to 1."""
        keep = (self.boxes.scores > score).tolist()
        masks = [mask for mask, kept in zip(self.masks, keep, strict=True) if kept]
        return Masks(self.boxes.above(score), masks)


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

    def above(self, score: float) -> OrientedBoxes:
        """Those whose score exceeds ``score``, 0 to 1."""
        keep = self.scores > score
        return OrientedBoxes(self.xywhr[keep], self.scores[keep], self.classes[keep])


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

    def above(self, score: float) -> Keypoints:
        """Those whose box has a score that exceeds ``score``, 0 to 1."""
        keep = self.boxes.scores > score
        return Keypoints(self.boxes.above(score), self.xy[keep], self.scores[keep])


@dataclass(frozen=True, slots=True)
class Classes:
    """What one image as a whole is taken for (classify).

    scores: float32, shape (classes of the model,): 0 to 1, together 1.
    """

    scores: npt.NDArray[np.float32]

    def above(self, score: float) -> Classes:
        """Itself: of an image as a whole every class is an answer, however low its score."""
        return self


Result = Boxes | Masks | OrientedBoxes | Keypoints | Classes
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
