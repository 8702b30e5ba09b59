"""Engines: what runs a model. One interface, a file an engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from ls_yolo.weights import safe

log = logging.getLogger(__name__)

Image = npt.NDArray[np.uint8]
"""An upright image, shape (height, width, 3), channels blue, green, red, values 0 to 255."""

Kind = Literal["torch", "openvino"]
"""The engines by name."""
Precision = Literal["auto", "f32", "int8"]
"""In what numbers a model computes: as the hardware does it fastest without another model (half of
the digits where a processor or a card gains by it), in full, or in eight bits."""


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
        """The boxes whose score exceeds ``score``: the rule of `Engine.predict`."""
        keep = self.scores > score
        return Boxes(self.xyxy[keep], self.scores[keep], self.classes[keep])


# The four below are what YOLO's other tasks give. No engine makes them and no control draws them
# yet; they stand here so that both sides will mean the same.


@dataclass(frozen=True, slots=True)
class Masks:
    """The outlined objects of one image (segment), highest score first.

    boxes: n of them.
    masks: bool, shape (n, height, width), in pixels of the upright image.
    """

    boxes: Boxes
    masks: npt.NDArray[np.bool_]


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


@dataclass(frozen=True, slots=True)
class Classes:
    """What one image as a whole is taken for (classify).

    scores: float32, shape (classes of the model,): 0 to 1, together 1.
    """

    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """An image made ready for an engine, which may keep what it needs in a class of its own.

    width, height: of the upright image, in pixels; boxes are given in these.
    """

    width: int
    height: int


class Engine(Protocol):
    """A loaded model. `prepare` is for any thread, all else for one: `batching.Owner` calls it."""

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
        """``image`` made ready. ``imgsz`` is in pixels; None: the weights' own.

        ``size`` is the width and height in pixels of the upright photograph, where ``image`` is a
        smaller copy of it: boxes are then in pixels of the photograph.
        """

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        """The boxes of each image, in order, the same whatever else is in the batch.

        ``conf`` is the score, 0 to 1, that a box must exceed, both in float32; ``iou`` the overlap,
        0 to 1, above which two boxes of a class are one. At most 300 boxes an image.
        """

    def release(self) -> None:
        """Gives the memory back. The engine is not used afterwards."""


class EngineError(RuntimeError):
    """Weights cannot be loaded; the message names the file and the reason."""


def choose(engine: str, device: str, gpu: bool, precision: str = "auto") -> Kind:
    """The engine that the settings ENGINE, DEVICE and PRECISION mean, where ``gpu`` says if one is
    there.

    Raises:
        EngineError: they contradict each other.
    """
    if precision not in get_args(Precision):
        raise EngineError(f"PRECISION: found {precision!r}, expected auto, f32 or int8")
    if engine not in ("auto", "torch", "openvino"):
        raise EngineError(f"ENGINE: found {engine!r}, expected auto, torch or openvino")
    if engine == "openvino" and device.startswith("cuda"):
        raise EngineError(
            f"ENGINE: found 'openvino', which runs on the CPU, but DEVICE is {device!r}; "
            "expected ENGINE=torch, or DEVICE=cpu"
        )
    asked = engine == "torch" or device.startswith("cuda")
    kind: Kind = "torch" if asked or (engine == device == "auto" and gpu) else "openvino"
    if precision == "int8" and kind == "torch":
        raise EngineError(
            "PRECISION: found 'int8', which OpenVINO computes on the CPU, but torch is to run the "
            "models; expected auto or f32, or DEVICE=cpu with ENGINE=auto"
        )
    return kind


def gpu_present() -> bool:
    """Whether torch can use an NVIDIA GPU here."""
    # The device files tell in no time; importing torch takes seconds, so only where they are there.
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return False
    import torch  # type: ignore[import-not-found,unused-ignore]

    return bool(torch.cuda.is_available())


def load(
    weights: Path,
    device: str,
    sha256: str = "",
    cache: Path | None = None,
    engine: str = "auto",
    imgsz: int | None = None,
    precision: Precision = "auto",
    photos: Path | None = None,
) -> Engine:
    """The engine for ``weights``, whose hash is ``sha256`` (empty: it is made here).

    ``device`` is ``auto``, ``cpu`` or ``cuda:0``; ``engine`` is ``auto``, ``torch`` or
    ``openvino``; ``cache`` is the folder for OpenVINO's exports (None: no OpenVINO). Where an
    export must be made first, torch answers meanwhile. ``imgsz`` is in pixels; None: the weights'
    own. ``int8`` is measured on the photographs in the folder ``photos``; until it is made, and
    where it is not good enough, the model computes as with ``auto``.

    Raises:
        EngineError: the file is not a detection model, the device is not there, or ``engine``,
            ``device`` and ``precision`` contradict each other.
    """
    safe()  # before anything imports ultralytics, which then looks at it
    gpu = device == "auto" and engine == "auto" and gpu_present()
    kind = choose(engine, device, gpu, precision)
    if kind == "openvino" and cache is None and engine == "openvino":
        raise EngineError("ENGINE=openvino needs a folder for its exports: MODEL_DIR")
    if kind == "openvino" and cache is not None:
        from ls_yolo.engines.switch import on_cpu

        return on_cpu(weights, sha256, cache, imgsz, precision, photos)
    # Importing torch takes seconds; the command line and the tests of pure code do without.
    from ls_yolo.engines.torch import TorchEngine

    return TorchEngine(weights, device, imgsz, precision)
