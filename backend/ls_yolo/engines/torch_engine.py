"""ultralytics on torch: a GPU where there is one, else the CPU."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.nn.modules.head import (
    Classify,
    Detect,
    Pose,
    RTDETRDecoder,
    SemanticSegment,
)

from ls_yolo.engines import devices, letterbox, tasks
from ls_yolo.engines.base import EngineError, Precision, Prepared
from ls_yolo.engines.batches import Halving, by_shape
from ls_yolo.engines.letterbox import Input, Letterboxed
from ls_yolo.engines.network import Network
from ls_yolo.models import weights as weights_files
from ls_yolo.results import Image, Result

log = logging.getLogger(__name__)

LARGEST_BATCH = 64
"""Images in one call of the network; halved where the GPU's memory does not hold them."""
NO_HALF = re.compile(r"1660|1650|1630|t400|t550|t600|t1000|t1200|t2000", re.IGNORECASE)
"""GPUs of a generation that gains by half precision, which themselves compute nonsense in it."""


class TorchEngine:
    """See `engines.base.Engine`.

    device: ``auto``, ``cpu`` or ``cuda:0``.
    imgsz: stands in for the weights' own, in pixels; None: it does not.
    precision: with ``f32`` a GPU computes in full precision too; a CPU always does.

    Raises:
        EngineError: the weights cannot be used, or the device is not there.
    """

    def __init__(
        self,
        weights: Path,
        device: str,
        imgsz: int | None = None,
        precision: Precision = "auto",
    ) -> None:
        self._device = devices.find(device)
        try:
            with weights_files.alias(weights) as link:
                yolo = YOLO(str(link))
            head = yolo.model.model[-1]
            self._half = (
                precision != "f32"
                and self._device.type == "cuda"
                # Where a transformer looks next is told by numbers that half precision is too
                # coarse for.
                and not isinstance(head, RTDETRDecoder)
                and gains_by_half(self._device)
            )
            network = describe(yolo, imgsz)
            tasks.find(network, str(weights))
            if network.channels not in (1, 3):
                raise EngineError(weights_files.wrong_channels(weights, network.channels))
            if not isinstance(head, (Detect, RTDETRDecoder, Classify, SemanticSegment)):
                kind = type(head).__name__
                raise EngineError(f"{weights}: found a model that ends in {kind}, expected a YOLO")
            # end2end as `YOLO.predict` has it by default: doubles are left to us where there is
            # the choice.
            self._model: Any = AutoBackend(
                yolo.model, device=self._device, fp16=self._half, verbose=False, end2end=False
            )
            self._model.eval()
        except EngineError:
            raise
        except Exception as error:  # ultralytics raises whatever unpickling raised
            raise EngineError(weights_files.explain(weights, error)) from error
        if self._half:
            decode_in_full(self._model.backend.model.model[-1])
        network = replace(network, end2end=bool(self._model.end2end))
        self.slots = 1
        self.names = dict(network.names)
        self.task = network.task
        self.imgsz = network.imgsz
        self._task = tasks.find(network, str(weights))
        self.input = Input.of(network, self.imgsz, self._task.way)
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
        return self.input.prepare(image, imgsz, size)

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        items = [item for item in prepared if isinstance(item, Letterboxed)]
        assert len(items) == len(prepared)
        found: list[Result | None] = [None] * len(items)
        # In a batch of unlike shapes all would be padded to one, and the boxes would then depend
        # on which other tasks came along.
        for group in by_shape(items):
            answers = self._parts.run(
                [items[index] for index in group], lambda part: self._forward(part, conf, iou)
            )
            for index, answer in zip(group, answers, strict=True):
                found[index] = answer
        return [result for result in found if result is not None]

    def _forward(self, items: Sequence[Letterboxed], conf: float, iou: float) -> list[Result]:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack([item.pixels for item in items]))
            # As bytes to the device, where the rest is cheap.
            batch = pixels.to(self._device).permute(0, 3, 1, 2).contiguous().flip(1)
            batch = (batch.half() if self._half else batch.float()).div_(255)
            outputs = first(self._model(batch))
            geometries = [item.geometry for item in items]
            return list(self._task.results(outputs, geometries, conf, iou))

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


def describe(yolo: Any, imgsz: int | None = None) -> Network:
    """The network of ``yolo``, a `ultralytics.YOLO`, before it is fused.

    imgsz: stands in for the weights' own, in pixels; None: it does not.
    """
    head = yolo.model.model[-1]
    points = tuple(head.kpt_shape) if isinstance(head, Pose) else (0, 0)
    return Network(
        names={int(index): str(name) for index, name in yolo.names.items()},
        task=str(yolo.task),
        imgsz=largest(imgsz or yolo.overrides.get("imgsz") or 640),
        stride=max(int(max(yolo.model.stride)), letterbox.STRIDE),
        channels=int(next(yolo.model.parameters()).shape[1]),
        keypoints=(int(points[0]), int(points[1])),
        transformer=isinstance(head, RTDETRDecoder),
    )


def first(output: Any) -> Sequence[Any]:
    """Of what a network of ultralytics returns, the tensors that predictions are made of."""
    if isinstance(output, (list, tuple)):  # what training needs comes second
        output = output[0]
    return output if isinstance(output, (list, tuple)) else (output,)


def largest(imgsz: Any) -> int:
    """An image size as weights hold it, a number or [height, width], as a number of pixels."""
    return int(max(imgsz)) if isinstance(imgsz, (list, tuple)) else int(imgsz)


def gains_by_half(device: torch.device) -> bool:
    """Whether the GPU computes faster in half precision, and rightly."""
    major, _ = torch.cuda.get_device_capability(device)
    return major >= 7 and not NO_HALF.search(torch.cuda.get_device_name(device))


def decode_in_full(head: Any) -> None:
    """Has ``head`` of a network in half precision compute places in full precision.

    Half precision knows only every second quarter of a pixel from 256 up and every half from 512.
    """
    if not hasattr(head, "_get_decode_boxes"):
        return
    decode = head._get_decode_boxes
    head.dfl.float()

    def in_full(raw: dict[str, Any]) -> Any:
        # Of the feature maps only shape and type count here, so nothing is copied.
        feats = [f.new_empty(1, dtype=torch.float32).expand(f.shape) for f in raw["feats"]]
        more = {"angle": raw["angle"].float()} if "angle" in raw else {}
        return decode({**raw, "boxes": raw["boxes"].float(), "feats": feats, **more})

    head._get_decode_boxes = in_full
    if isinstance(head, Pose):
        points = head.kpts_decode
        head.kpts_decode = lambda raw: points(raw.float())
