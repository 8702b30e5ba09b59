"""What an engine is. One interface, a file an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ls_yolo.errors import RequestError
from ls_yolo.results import Image, Result

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


class EngineError(RequestError):
    """Weights cannot be loaded; the message names the file and the reason."""
