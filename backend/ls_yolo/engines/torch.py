"""ultralytics on torch: a GPU where there is one, else the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO

from ls_yolo.engines import Boxes, EngineError, Image, Prepared


@dataclass(frozen=True)
class _Image(Prepared):
    image: Image
    imgsz: int | None


class TorchEngine:
    """See `engines.Engine`."""

    def __init__(self, weights: Path, device: str) -> None:
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        elif device.startswith("cuda") and not torch.cuda.is_available():
            raise EngineError(
                f"DEVICE: found {device!r}, but torch {torch.__version__} sees no GPU; "
                "expected cpu or auto, or a container that has the GPU"
            )
        self._device = device
        try:
            self._model = YOLO(str(weights))
            self._model.to(device)
        except Exception as error:  # ultralytics raises whatever unpickling raised
            raise EngineError(f"{weights}: cannot be loaded as YOLO weights: {error}") from error
        if self._model.task != "detect":
            raise EngineError(
                f"{weights}: found a model for {self._model.task!r}, expected 'detect'"
            )
        self.names: dict[int, str] = {int(i): str(n) for i, n in self._model.names.items()}

    def warm_up(self) -> None:
        self.predict([self.prepare(np.zeros((640, 640, 3), np.uint8), None)], 0.5, 0.7)

    def prepare(self, image: Image, imgsz: int | None) -> Prepared:
        height, width = image.shape[:2]
        return _Image(width, height, image, imgsz)

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        boxes = []
        for item in prepared:
            assert isinstance(item, _Image)
            size = {} if item.imgsz is None else {"imgsz": item.imgsz}
            # One at a time: in a batch of unlike shapes ultralytics pads to a square, and the boxes
            # would then depend on which other tasks came along.
            found = self._model.predict(
                item.image, conf=conf, iou=iou, device=self._device, verbose=False, **size
            )[0].boxes
            array = found.data.cpu().numpy()
            boxes.append(
                Boxes(
                    array[:, :4].astype(np.float32),
                    array[:, 4].astype(np.float32),
                    array[:, 5].astype(np.int64),
                )
            )
        return boxes

    def release(self) -> None:
        del self._model
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
