"""OpenVINO on a CPU: exported weights run by its own runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from ls_yolo.engines import Boxes, Image, Precision, Prepared, cores, letterbox, suppress
from ls_yolo.engines.export import Export
from ls_yolo.engines.letterbox import Geometry, Letterboxed


class OpenVINOEngine:
    """See `engines.Engine`. ``imgsz`` in pixels stands in for the export's own; None: no.

    With the precision ``auto`` it computes in bfloat16 where the processor does: 1.6 times as fast,
    and scores move by about 0.01 against ``f32``.
    """

    def __init__(
        self, export: Export, imgsz: int | None = None, precision: Precision = "auto"
    ) -> None:
        self.names = dict(export.names)
        self.task = export.task
        self.imgsz = imgsz or export.imgsz
        self._stride = export.stride
        self._end2end = export.end2end
        core = ov.Core()
        self._threads = cores.available()
        compiled = core.compile_model(
            _with_preprocessing(core.read_model(str(export.model))),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                # Unless told, OpenVINO takes what the processor computes fastest.
                **({"INFERENCE_PRECISION_HINT": "f32"} if precision == "f32" else {}),
                "INFERENCE_NUM_THREADS": self._threads,
                # Threads that decode share the cores; pinned ones could not step aside.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._precision = str(compiled.get_property("INFERENCE_PRECISION_HINT").to_string())
        if export.int8 is not None:
            self._precision = f"int8 (mAP {100 * export.int8:.1f} against floats)"
        # Two: the next image is computed while the boxes of the last are picked.
        self._requests = [compiled.create_infer_request() for _ in range(2)]

    @property
    def description(self) -> str:
        return f"openvino {ov.__version__.split('-')[0]}, {self._precision}, {self._threads} cores"

    def warm_up(self) -> None:
        self.predict([self.prepare(np.zeros((480, 640, 3), np.uint8), None)], 0.5, 0.7)

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Letterboxed:
        width, height = size or (image.shape[1], image.shape[0])
        return letterbox.apply(image, self._fit(width, height, imgsz or self.imgsz))

    def _fit(self, width: int, height: int, imgsz: int) -> Geometry:
        geometry = letterbox.fit(width, height, imgsz, self._stride)
        if self._end2end and _anchors(geometry) < suppress.MAX_BOXES:
            # Such a network picks so many boxes itself, and fails where there are not as many.
            return letterbox.fit(width, height, imgsz, self._stride, square=True)
        return geometry

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        # One at a time: a batch does not gain on a CPU, and so what comes along changes nothing.
        found: list[Boxes] = []
        running: list[tuple[Any, Letterboxed]] = []
        try:
            for number, item in enumerate(prepared):
                assert isinstance(item, Letterboxed)
                request = self._requests[number % 2]
                request.set_input_tensor(ov.Tensor(item.pixels[None], shared_memory=True))
                request.start_async()
                running.append((request, item))
                if len(running) == 2:
                    found.append(self._boxes(*running.pop(0), conf, iou))
            if running:
                found.append(self._boxes(*running.pop(0), conf, iou))
        finally:
            for request, _ in running:  # after an error; the pixels must outlive what reads them
                request.cancel()
                request.wait()
        return found

    def _boxes(self, request: Any, item: Letterboxed, conf: float, iou: float) -> Boxes:
        request.wait()
        output = request.get_output_tensor(0).data[0]
        return suppress.boxes(output, item.geometry, conf, iou, self._end2end)

    def release(self) -> None:
        del self._requests


def _with_preprocessing(model: Any) -> Any:
    """``model`` for bytes as OpenCV has them: what is left to do is done in the graph, in place."""
    steps = PrePostProcessor(model)
    tensor = steps.input().tensor()
    tensor.set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    tensor.set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    work = steps.input().preprocess()
    work.convert_element_type(ov.Type.f32).convert_color(ColorFormat.RGB).scale(255.0)
    return steps.build()


def _anchors(geometry: Geometry) -> int:
    height, width = geometry.shape
    return sum((height // step) * (width // step) for step in (8, 16, 32))
