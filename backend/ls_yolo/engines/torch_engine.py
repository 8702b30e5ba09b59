"""ultralytics on torch: a GPU where there is one, else the CPU."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.modules.head import Detect

from ls_yolo.engines import cpu, letterbox, nms
from ls_yolo.engines.base import EngineError, Precision, Prepared
from ls_yolo.engines.batches import Halving, by_shape
from ls_yolo.engines.letterbox import Letterboxed
from ls_yolo.results import Boxes, Image

log = logging.getLogger(__name__)

LARGEST_BATCH = 64
"""Images in one call of the network; halved where the GPU's memory does not hold them."""
NO_HALF = re.compile(r"1660|1650|1630|t400|t550|t600|t1000|t1200|t2000", re.IGNORECASE)
"""GPUs of a generation that gains by half precision, which themselves compute nonsense in it."""


class TorchEngine:
    """See `engines.Engine`. ``imgsz`` in pixels stands in for the weights' own; None: no.

    With the precision ``f32`` a card computes in full precision too; a CPU always does.
    """

    def __init__(
        self,
        weights: Path,
        device: str,
        imgsz: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        if device == "auto":
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        elif device.startswith("cuda") and not torch.cuda.is_available():
            raise EngineError(
                f"DEVICE: found {device!r}, but torch {torch.__version__} sees no GPU; "
                "expected cpu or auto, or a container that has the GPU"
            )
        self._device = torch.device("cuda:0" if device == "cuda" else device)
        if self._device.type == "cpu":
            torch.set_num_threads(cpu.available())
        try:
            yolo = YOLO(str(weights))
            self.task = str(yolo.task)
            if self.task != "detect":
                raise EngineError(f"{weights}: found a model for {self.task!r}, expected 'detect'")
            if not isinstance(yolo.model.model[-1], Detect):
                kind = type(yolo.model.model[-1]).__name__
                raise EngineError(f"{weights}: found a model that ends in {kind}, expected a YOLO")
            self._half = (
                precision != "f32" and self._device.type == "cuda" and gains_by_half(self._device)
            )
            # end2end as `YOLO.predict` has it by default: doubles are left to us where there is
            # the choice.
            self._model: Any = AutoBackend(
                yolo.model, device=self._device, fp16=self._half, verbose=False, end2end=False
            )
            self._model.eval()
        except EngineError:
            raise
        except Exception as error:  # ultralytics raises whatever unpickling raised
            raise EngineError(f"{weights}: cannot be loaded as YOLO weights: {error}") from error
        if self._half:
            decode_in_full(self._model.backend.model.model[-1])
        self.names: dict[int, str] = {int(i): str(n) for i, n in self._model.names.items()}
        self.imgsz = largest(imgsz or yolo.overrides.get("imgsz") or 640)
        self._parts = Halving(LARGEST_BATCH, torch.cuda.OutOfMemoryError, self._smaller)
        self._told = False

    @property
    def description(self) -> str:
        precision = ", half precision" if self._half else ""
        return f"torch {torch.__version__} on {self._device}{precision}"

    def warm_up(self) -> None:
        self.predict([self.prepare(np.zeros((640, 640, 3), np.uint8), None)], 0.5, 0.7)

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Letterboxed:
        width, height = size or (image.shape[1], image.shape[0])
        stride = max(int(self._model.stride), letterbox.STRIDE)
        return letterbox.apply(
            image, letterbox.fit(width, height, imgsz or self.imgsz, stride=stride)
        )

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        items = [item for item in prepared if isinstance(item, Letterboxed)]
        assert len(items) == len(prepared)
        found: list[Boxes | None] = [None] * len(items)
        # In a batch of unlike shapes all would be padded to one, and the boxes would then depend
        # on which other tasks came along.
        for group in by_shape(items):
            answers = self._parts.run(
                [items[index] for index in group], lambda part: self._forward(part, conf, iou)
            )
            for index, answer in zip(group, answers, strict=True):
                found[index] = answer
        return [boxes for boxes in found if boxes is not None]

    def _forward(self, items: Sequence[Letterboxed], conf: float, iou: float) -> list[Boxes]:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([item.pixels for item in items]))
            # As bytes to the device, where the rest is cheap.
            batch = pixels.to(self._device).permute(0, 3, 1, 2).contiguous().flip(1)
            batch = (batch.half() if self._half else batch.float()).div_(255)
            output = self._model(batch)
            if isinstance(output, (list, tuple)):
                output = output[0]
            if self._model.end2end:
                rows = output.float().cpu().numpy()
                return [
                    nms.boxes(row, item.geometry, conf, iou, end2end=True)
                    for row, item in zip(rows, items, strict=True)
                ]
            # What can be a box is picked on the device, for all images at once: little is left.
            scores, classes = output[:, 4:].max(1)
            # Half precision would round the threshold, too.
            scores = scores.float()
            image, anchor = (scores > conf).nonzero(as_tuple=True)
            xywh = output[:, :4].transpose(1, 2)[image, anchor].float().cpu().numpy()
            chosen = scores[image, anchor].cpu().numpy()
            kinds = classes[image, anchor].cpu().numpy()
        edges = np.searchsorted(image.cpu().numpy(), np.arange(len(items) + 1))
        return [
            nms.kept(xywh[a:b], chosen[a:b], kinds[a:b], item.geometry, iou)
            for a, b, item in zip(edges[:-1], edges[1:], items, strict=True)
        ]

    def _smaller(self, limit: int) -> None:
        torch.cuda.empty_cache()
        if not self._told:
            self._told = True
            log.warning(
                "%s: the memory is full; batches of %d and fewer from here on", self._device, limit
            )

    def release(self) -> None:
        del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def largest(imgsz: Any) -> int:
    """An image size as weights hold it, a number or [height, width], as a number of pixels."""
    return int(max(imgsz)) if isinstance(imgsz, (list, tuple)) else int(imgsz)


def gains_by_half(device: torch.device) -> bool:
    """Whether the GPU computes faster in half precision, and rightly."""
    major, _ = torch.cuda.get_device_capability(device)
    return major >= 7 and not NO_HALF.search(torch.cuda.get_device_name(device))


def decode_in_full(head: Any) -> None:
    """Has ``head`` of a network in half precision compute boxes in full precision.

    Half precision knows only every second quarter of a pixel from 256 up and every half from 512.
    """
    if not hasattr(head, "_get_decode_boxes"):
        return
    decode = head._get_decode_boxes
    head.dfl.float()

    def in_full(raw: dict[str, Any]) -> Any:
        # Of the feature maps only shape and type count here, so nothing is copied.
        feats = [f.new_empty(1, dtype=torch.float32).expand(f.shape) for f in raw["feats"]]
        return decode({**raw, "boxes": raw["boxes"].float(), "feats": feats})

    head._get_decode_boxes = in_full
