"""Which engine runs weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ls_yolo.engines.base import Engine, EngineError, Kind, Precision, Segmenter
from ls_yolo.models.weights import safe


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


@dataclass(frozen=True)
class EngineOptions:
    """What runs models, and how.

    device: ``auto``, ``cpu`` or ``cuda:0``.
    engine: ``auto``, ``torch`` or ``openvino``.
    precision: see `base.Precision`.
    cache: the folder for OpenVINO's exports; None: no OpenVINO.
    images: the folder whose images int8 is calibrated and measured on. Until it is made, and where
        it is not good enough, a model computes as with ``auto``.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: Precision = "auto"
    cache: Path | None = None
    images: Path | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> EngineOptions:
        """The options that the settings ``values`` say."""
        return cls(
            device=values["DEVICE"],
            engine=values["ENGINE"],
            precision=values["PRECISION"],
            cache=Path(values["MODEL_DIR"]),
            images=Path(values["LOCAL_FILES_DOCUMENT_ROOT"], values["CALIBRATION_IMAGES"]),
        )


def load_engine(
    weights: Path, sha256: str, imgsz: int | None = None, options: EngineOptions = EngineOptions()
) -> Engine:
    """The engine for ``weights``. Where an export must be made first, torch answers meanwhile.

    sha256: of the weights, in hexadecimal.
    imgsz: in pixels; None: the weights' own.

    Raises:
        EngineError: the weights cannot be used, the device is not there, or options contradict each
            other.
    """
    safe()  # before anything imports ultralytics, which then looks at it
    device, engine = options.device, options.engine
    gpu = device == "auto" and engine == "auto" and gpu_present()
    kind = choose(engine, device, gpu, options.precision)
    if kind == "openvino" and options.cache is None and engine == "openvino":
        raise EngineError("ENGINE=openvino needs a folder for its exports: MODEL_DIR")
    if kind == "openvino" and options.cache is not None:
        from ls_yolo.engines.hot_swap import on_cpu

        return on_cpu(weights, sha256, options.cache, imgsz, options.precision, options.images)
    # Importing torch takes seconds; the command line and the tests of pure code do without.
    from ls_yolo.engines.torch_engine import TorchEngine

    return TorchEngine(weights, device, imgsz, options.precision)


def load_sam(
    weights: Path, architecture: str, options: EngineOptions = EngineOptions()
) -> Segmenter:
    """The SAM of ``weights``, by torch: on the GPU where there is one and ENGINE is not openvino.

    architecture: one of `ls_yolo.models.sam.ARCHITECTURES`.

    Raises:
        EngineError: the weights cannot be used, or the device is not there.
    """
    safe()
    from ls_yolo.engines.sam import SamSegmenter

    return SamSegmenter(
        weights, architecture, "cpu" if options.engine == "openvino" else options.device
    )
