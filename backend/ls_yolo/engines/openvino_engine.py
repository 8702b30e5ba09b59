"""OpenVINO on a CPU: exported weights run by its own runtime."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from ls_yolo.engines import cpu, tasks
from ls_yolo.engines.base import Precision, Prepared
from ls_yolo.engines.export import Export
from ls_yolo.engines.letterbox import Input, Letterboxed
from ls_yolo.engines.mean_ap import METRICS
from ls_yolo.results import RESULTS, Image, Result

STREAMS = 4
"""The most images that are computed side by side; with more cores each gets several."""


@dataclass(frozen=True)
class Run:
    """An image that is being computed, by one of OpenVINO's requests; ``free``: where that goes
    back to."""

    request: Any
    item: Letterboxed
    free: list[Any]


class OpenVINOEngine:
    """See `engines.base.Engine`.

    imgsz: stands in for the export's own, in pixels; None: it does not.
    precision: with ``auto`` it computes in bfloat16 where the CPU does: 1.6 times as fast, and
        scores move by about 0.01 against ``f32``.

    A lone image is computed by all cores together. Several are computed side by side, by a core
    each, which waits for no other; as one is done the next begins, so that no core waits for a
    batch to end.
    """

    def __init__(
        self, export: Export, imgsz: int | None = None, precision: Precision = "auto"
    ) -> None:
        network = export.network
        self.names = dict(network.names)
        self.task = network.task
        self.imgsz = imgsz or network.imgsz
        self._task = tasks.find(network, str(export.model))
        self.input = Input.of(network, self.imgsz, self._task.way)
        self._threads = cpu.available()
        self._streams = min(self._threads, STREAMS)
        core = ov.Core()
        model = _with_preprocessing(core.read_model(str(export.model)), network.channels)
        settings: dict[str, Any] = {
            # Unless told, OpenVINO takes what the CPU computes fastest.
            **({"INFERENCE_PRECISION_HINT": "f32"} if precision == "f32" else {}),
            "INFERENCE_NUM_THREADS": self._threads,
            # Threads that decode share the cores; pinned ones could not step aside.
            "ENABLE_CPU_PINNING": False,
        }
        together = core.compile_model(model, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
        # One more than run at a time: it begins at once where the boxes of another are picked.
        self._together = [together.create_infer_request() for _ in range(2)]
        self._each: list[Any] = []
        if self._streams > 1:
            each = core.compile_model(model, "CPU", {**settings, "NUM_STREAMS": self._streams})
            self._each = [each.create_infer_request() for _ in range(self._streams + 1)]
        self.slots = len(self._each) or len(self._together)
        self._precision = str(together.get_property("INFERENCE_PRECISION_HINT").to_string())
        if export.int8 is not None:
            metric = METRICS[RESULTS[network.task]]
            self._precision = f"int8 ({metric} {100 * export.int8:.1f} against floats)"

    @property
    def description(self) -> str:
        return f"openvino {ov.__version__.split('-')[0]}, {self._precision}, {self._threads} cores"

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Letterboxed:
        return self.input.prepare(image, imgsz, size)

    def warm_up(self) -> None:
        image = self.prepare(np.zeros((480, 640, 3), np.uint8), None)
        for count in {1, self._streams}:
            self.predict([image] * count, 0.5, 0.7)

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        # Each by itself: a batch does not gain on a CPU, and so what comes along changes nothing.
        found: list[Result] = []
        running: deque[Run] = deque()
        try:
            for item in prepared:
                if len(running) == self.slots:
                    found.append(self.finish(running.popleft(), conf, iou))
                running.append(self.start(item, alone=len(prepared) < self._streams, done=None))
            while running:
                found.append(self.finish(running.popleft(), conf, iou))
        finally:
            for run in running:  # after an error; the pixels must outlive what reads them
                self.drop(run)
        return found

    def start(self, item: Prepared, alone: bool, done: Callable[[], None] | None) -> Run:
        assert isinstance(item, Letterboxed)
        free = self._together if self._together and (alone or not self._each) else self._each
        request = free.pop()
        try:
            request.set_callback((lambda _: done and done()), None)
            request.set_input_tensor(ov.Tensor(item.pixels[None], shared_memory=True))
            request.start_async()
        except BaseException:
            self._give_back(Run(request, item, free))
            raise
        return Run(request, item, free)

    def ended(self, run: Run) -> bool:
        try:
            return bool(run.request.wait_for(0))
        except Exception:  # it failed, as `finish` will say
            return True

    def finish(self, run: Run, conf: float, iou: float) -> Result:
        try:
            run.request.wait()
            # They are written to again by the next image.
            outputs = [tensor.data[0] for tensor in run.request.output_tensors]
            return self._task.result(outputs, run.item.geometry, conf, iou)
        finally:
            self._give_back(run)

    def drop(self, run: Run) -> None:
        with contextlib.suppress(Exception):  # that it was cancelled
            run.request.cancel()
            run.request.wait()
        self._give_back(run)

    @staticmethod
    def _give_back(run: Run) -> None:
        run.request.set_callback(lambda _: None, None)  # or it would keep the image
        run.free.append(run.request)

    def release(self) -> None:
        del self._together, self._each


def _with_preprocessing(model: Any, channels: int) -> Any:
    """``model`` for bytes as OpenCV has them: what is left to do is done in the graph, in place."""
    steps = PrePostProcessor(model)
    tensor = steps.input().tensor()
    tensor.set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    if channels == 3:
        tensor.set_color_format(ColorFormat.BGR)
    steps.input().model().set_layout(ov.Layout("NCHW"))
    work = steps.input().preprocess()
    work.convert_element_type(ov.Type.f32)
    work.scale(255.0)
    if channels == 3:
        # Last: with a step behind it OpenVINO leaves it out for networks such as RT-DETR's, unsaid.
        work.convert_color(ColorFormat.RGB)
    return steps.build()
