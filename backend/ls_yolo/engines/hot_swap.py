"""OpenVINO where its export is ready; until then torch, which it takes over from while running. In
the same way an int8 model takes over from the one in floats."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ls_yolo.engines import export, int8
from ls_yolo.engines.base import Engine, Overlapping, Precision, Prepared
from ls_yolo.engines.export import Exporter, ExportError
from ls_yolo.results import Image, Result

if TYPE_CHECKING:
    from ls_yolo.engines.letterbox import Input
    from ls_yolo.engines.openvino_engine import OpenVINOEngine
    from ls_yolo.engines.torch_engine import TorchEngine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What takes the place of an engine.

    ``make`` makes it, ``stop`` has that end soon; ``without`` says in the log what is missing where
    it cannot be made, ``no`` the same in two words.
    """

    make: Callable[[], Engine]
    stop: Callable[[], None]
    without: str
    no: str


def on_cpu(
    weights: Path,
    sha256: str,
    cache: Path,
    imgsz: int | None,
    precision: Precision = "auto",
    images: Path | None = None,
) -> Engine:
    """The engine for ``weights`` on the CPU. See `load.load_engine` and `load.EngineOptions`.

    Raises:
        EngineError: torch, where it is needed, cannot load the weights.
    """
    cache = cache / "openvino"

    def by_openvino(name: str) -> OpenVINOEngine | None:
        return _ready(cache, name, imgsz, precision)

    def stage(
        name: str, exporter: Exporter, taken: Callable[[], Input], without: str, no: str
    ) -> Stage:
        def make() -> Engine:
            exporter.run()
            made = by_openvino(name)
            if made is None:
                raise ExportError(f"{cache / name} is not there although it was made")
            if made.input != taken():  # what the one has prepared, the other must predict
                made.release()
                raise ExportError(f"it takes {made.input}, expected {taken()}")
            return made

        return Stage(make, exporter.stop, without, no)

    name, stages = export.key(sha256, imgsz), []
    first: OpenVINOEngine | TorchEngine
    try:
        if precision == "int8" and images is not None:
            small = int8.key(sha256, imgsz, images)
            if found := by_openvino(small):
                return found
            exporter = Exporter(weights, sha256, cache, imgsz, images)
            without = "it goes on as with PRECISION=auto: no int8"
            stages = [stage(small, exporter, lambda: first.input, without, "no int8")]
        if found := by_openvino(name):
            first = found
            return HotSwapEngine(first, stages, weights.name) if stages else first
        broken = ""
    except Exception as error:  # OpenVINO raises RuntimeError, and ImportError where it is not
        broken = f"OpenVINO cannot run {cache / name}: {error}"
    # Importing torch takes seconds and hundreds of megabytes; not needed from the second start on.
    from ls_yolo.engines.torch_engine import TorchEngine

    first = TorchEngine(weights, "cpu", imgsz)
    if broken:
        log.warning("%s: torch answers, slower: %s", weights.name, broken)
        return first
    exporter = Exporter(weights, sha256, cache, imgsz)
    without = "torch goes on, slower: no OpenVINO"
    stages.insert(0, stage(name, exporter, lambda: first.input, without, "no OpenVINO"))
    return HotSwapEngine(first, stages, weights.name)


def _ready(
    cache: Path, name: str, imgsz: int | None, precision: Precision
) -> OpenVINOEngine | None:
    found = export.find(cache, name)
    if found is None:
        return None
    from ls_yolo.engines.openvino_engine import OpenVINOEngine

    return OpenVINOEngine(found, imgsz, precision)


class HotSwapEngine:
    """An engine that others take the place of, one after the other; see `engines.Engine`.

    They are made in a thread of their own. All take the same `letterbox.Input`, so what was
    prepared before a swap is predicted after it. Where one cannot be made, the last goes on; the
    log says why, once, and `description` from then on.

    first: what answers at once.
    stages: what takes over, in order.
    name: of the weights, for the log.
    """

    def __init__(self, first: Engine, stages: Sequence[Stage], name: str) -> None:
        self._engine = first
        self._stages = stages
        # Of the first for ever: it goes without a lock, and works when the engine is released.
        self._prepare = first.prepare
        self._name = name
        self._missing = ""
        self._lock = threading.Condition()
        self._running: Counter[int] = Counter()
        self._released = False
        self.names = first.names
        self.task = first.task
        self.imgsz = first.imgsz
        self._thread = threading.Thread(target=self._switch, name="export", daemon=True)
        self._thread.start()

    @property
    def description(self) -> str:
        return self._engine.description + self._missing

    def _switch(self) -> None:
        for stage in self._stages:
            try:
                next_one = stage.make()
                next_one.warm_up()
            except Exception as error:  # whatever it is, the one before can go on
                if not self._released:
                    self._missing = f"; {stage.no}: {error}"
                    log.warning("%s: %s: %s", self._name, stage.without, error)
                return
            with self._lock:  # between two batches
                released = self._released
                old = next_one if released else self._engine
                if not released:
                    self._engine = next_one
                while self._running[id(old)]:
                    self._lock.wait()
            old.release()
            if released:
                return
            log.info("%s: from here on by %s", self._name, next_one.description)

    def warm_up(self) -> None:
        with self._lock:
            self._engine.warm_up()

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Prepared:
        return self._prepare(image, imgsz, size)

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        with self._lock:
            return self._engine.predict(prepared, conf, iou)

    @property
    def slots(self) -> int:
        return self._engine.slots

    def start(
        self, item: Prepared, alone: bool, done: Callable[[], None] | None
    ) -> tuple[Overlapping, Any]:
        with self._lock:
            engine = cast(Overlapping, self._engine)  # nobody asks another, nor goes back to one
            run = engine.start(item, alone, done)
            self._running[id(engine)] += 1
        return engine, run

    def ended(self, run: tuple[Overlapping, Any]) -> bool:
        engine, inner = run
        return engine.ended(inner)

    def finish(self, run: tuple[Overlapping, Any], conf: float, iou: float) -> Result:
        engine, inner = run  # of what computes it, whatever has taken over meanwhile
        try:
            return engine.finish(inner, conf, iou)
        finally:
            with self._lock:
                self._running[id(engine)] -= 1
                self._lock.notify_all()

    def release(self) -> None:
        with self._lock:
            self._released = True
            self._engine.release()
        for stage in self._stages:
            stage.stop()
        # Whatever it was about to swap in is released by it, too.
        self._thread.join()
