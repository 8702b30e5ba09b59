"""Engines: what runs a model. One interface, a file an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""An upright image, shape (height, width, 3), channels blue, green, red, values 0 to 255."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """The boxes of one image, highest score first.

    xyxy: float32, shape (n, 4): left, top, right, bottom in pixels of the upright image.
    scores: float32, shape (n,): 0 to 1.
    classes: int64, shape (n,): class indices of the model.
    """

    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def above(self, score: float) -> Boxes:
        """The boxes whose score is at least ``score``."""
        keep = self.scores >= score
        return Boxes(self.xyxy[keep], self.scores[keep], self.classes[keep])


class Engine(Protocol):
    """A loaded model. Not safe to share between threads: `batching.Owner` is its one caller."""

    names: dict[int, str]
    """Class index to class name, as the weights have it."""

    def warm_up(self) -> None:
        """Predicts once on nothing, so that the first real image does not pay for start-up work."""

    def predict(
        self, images: Sequence[Image], conf: float, iou: float, imgsz: int | None
    ) -> list[Boxes]:
        """The boxes of each image, in order. ``imgsz`` is in pixels; None: the weights' own."""

    def release(self) -> None:
        """Gives the memory back. The engine is not used afterwards."""


class EngineError(RuntimeError):
    """Weights cannot be loaded; the message names the file and the reason."""


def load(weights: Path, device: str) -> Engine:
    """The engine for ``weights`` on ``device`` (``auto``, ``cpu``, ``cuda:0``).

    Raises:
        EngineError: the file is not a detection model, or the device is not there.
    """
    # Importing torch takes seconds; the command line and the tests of pure code do without.
    from ls_yolo.engines.torch import TorchEngine

    return TorchEngine(weights, device)
