"""What an engine is. One interface, a file an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ls_yolo.errors import RequestError
from ls_yolo.results import Image, Masks, Result

Kind = Literal["torch", "openvino"]
"""The engines by name."""
Precision = Literal["auto", "f32", "int8"]
"""In what numbers a model computes: as the hardware does it fastest without another model (half of
the digits where a CPU or a GPU gains by it), in full, or in int8."""


@dataclass(frozen=True)
class Prepared:
    """An image made ready for an engine, which may keep what it needs in a class of its own.

    width, height: of the upright image, in pixels; boxes are given in these.
    """

    width: int
    height: int


class Engine(Protocol):
    """A loaded model. `prepare` is for any thread, all else for one: that of its batcher.

    `prepare` still works after `release`: a thread that prepares an image does not hold a lock.
    """

    names: dict[int, str]
    """Class index to class name, as the weights have it."""

    task: str
    """What the model does, as ultralytics calls it: ``detect``."""

    imgsz: int
    """The longest side, in pixels, that the network gets where `prepare` is told no other."""

    @property
    def slots(self) -> int:
        """Images that may be under way at a time, if it is `Overlapping`; else 1: it gains by
        batches."""

    @property
    def description(self) -> str:
        """What runs the model, for people: ``openvino, bf16, 2 threads``."""

    def warm_up(self) -> None:
        """Predicts once on nothing, so that the first real image does not pay for start-up work."""

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Prepared:
        """``image`` made ready.

        imgsz: the longest side, in pixels, that the network gets; None: the weights' own.
        size: width and height of the upright image in pixels, where ``image`` is a smaller copy of
            it: results are then in pixels of the upright image.
        """

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        """The result of each image, in order, the same whatever else is in the batch.

        conf: the score, 0 to 1, that a box must exceed, both in float32.
        iou: the overlap, 0 to 1, above which two boxes of a class are one.

        At most 300 boxes an image.
        """

    def release(self) -> None:
        """Gives the memory back. The engine is not used afterwards."""


class Overlapping(Engine, Protocol):
    """An engine that computes images side by side: as one is done the next may begin, and none
    waits for the end of a batch."""

    def start(self, item: Prepared, alone: bool, done: Callable[[], None] | None) -> Any:
        """Begins to compute an image, of which at most ``slots`` are under way; what is returned is
        for `finish`.

        alone: no other is expected meanwhile.
        done: called once it is computed, from a thread of the engine; perhaps not where it failed.
        """

    def ended(self, run: Any) -> bool:
        """Whether what `start` began is computed or has failed."""

    def finish(self, run: Any, conf: float, iou: float) -> Result:
        """The result of what `start` began, once it is there; see `predict`."""


@dataclass(frozen=True)
class Embedding:
    """What a `Segmenter` has made of an image, and keeps in a class of its own; it answers clicks
    without the image.

    width, height: of the upright image, in pixels.
    """

    width: int
    height: int


Spot = tuple[float, float, bool]
"""A click: x and y in pixels of the upright image, and whether it is on the object."""


class Segmenter(Protocol):
    """A loaded SAM. `embed` is for one thread at a time, all else for any."""

    @property
    def description(self) -> str:
        """What runs the model, for people."""

    def warm_up(self) -> None:
        """Does what the first image would pay for otherwise, where that takes no long time."""

    def prepare(self, image: Image) -> Prepared:
        """``image`` made ready; small, whatever its size."""

    def embed(self, prepared: Prepared) -> Embedding:
        """What `outline` needs of an image: nearly all of the work, seconds on a CPU."""

    def outline(
        self,
        embedding: Embedding,
        spots: Sequence[Spot],
        box: tuple[float, float, float, float] | None,
    ) -> Masks:
        """The one object that is meant by all ``spots`` and ``box`` together, of class 0; none
        where no pixel is.

        box: left, top, right, bottom in pixels of the upright image. There is a box, or a spot.

        The score is the overlap (IoU) with the true object that the model expects.
        """

    def release(self) -> None:
        """Gives the memory back. It is not used afterwards."""


class EngineError(RequestError):
    """Weights cannot be loaded; the message names the file and the reason."""
