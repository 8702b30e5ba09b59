"""OpenVINO where its export is ready; until then torch, which it takes over from while running."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ls_yolo.engines import Boxes, Engine, Image, Prepared, export
from ls_yolo.engines.export import Exporter, ExportError

log = logging.getLogger(__name__)


def on_cpu(weights: Path, sha256: str, cache: Path, imgsz: int | None) -> Engine:
    """The engine for ``weights`` on the CPU. See `engines.load`.

    Raises:
        EngineError: torch, where it is needed, cannot load the weights.
    """
    cache = cache / "openvino"
    sha256 = sha256 or export.hash_file(weights)
    name = export.key(sha256, imgsz)
    try:
        if found := _ready(cache, name, imgsz):
            return found
        broken = ""
    except Exception as error:  # OpenVINO raises RuntimeError, and ImportError where it is not
        broken = f"OpenVINO cannot run {cache / name}: {error}"
    # Importing torch takes seconds and hundreds of megabytes; not needed from the second start on.
    from ls_yolo.engines.torch import TorchEngine

    first = TorchEngine(weights, "cpu", imgsz)
    if broken:
        log.warning("%s: torch answers, slower: %s", weights.name, broken)
        return first
    exporter = Exporter(weights, sha256, cache, imgsz)

    def second() -> Engine:
        exporter.run()
        made = _ready(cache, name, imgsz)
        if made is None:
            raise ExportError(f"{cache / name} is not there although it was made")
        return made

    return Switching(first, second, exporter.stop, weights.name)


def _ready(cache: Path, name: str, imgsz: int | None) -> Engine | None:
    found = export.find(cache, name)
    if found is None:
        return None
    from ls_yolo.engines.openvino import OpenVINOEngine

    return OpenVINOEngine(found, imgsz)


class Switching:
    """An engine that another takes the place of, once that is made; see `engines.Engine`.

    ``make`` makes the other in a thread of its own, ``stop`` has it end soon. Both must prepare
    images in the same way. If it fails, the first goes on, and the log says why, once.
    """

    def __init__(
        self, first: Engine, make: Callable[[], Engine], stop: Callable[[], None], name: str
    ) -> None:
        self._engine = first
        self._make = make
        self._stop = stop
        self._name = name
        self._lock = threading.Lock()
        self._released = False
        self.names = first.names
        self.task = first.task
        self.imgsz = first.imgsz
        self._thread = threading.Thread(target=self._switch, name="export", daemon=True)
        self._thread.start()

    @property
    def description(self) -> str:
        return self._engine.description

    def _switch(self) -> None:
        try:
            second = self._make()
            second.warm_up()
        except Exception as error:  # whatever it is, the first can go on
            if not self._released:
                log.warning("%s: torch goes on, slower: no OpenVINO: %s", self._name, error)
            return
        with self._lock:  # between two batches
            old, self._engine = (second, self._engine) if self._released else (self._engine, second)
        old.release()
        if not self._released:
            log.info("%s: from here on by %s", self._name, second.description)

    def warm_up(self) -> None:
        with self._lock:
            self._engine.warm_up()

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Prepared:
        return self._engine.prepare(image, imgsz, size)

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        with self._lock:
            return self._engine.predict(prepared, conf, iou)

    def release(self) -> None:
        with self._lock:
            self._released = True
            self._engine.release()
        self._stop()
        # Whatever it was about to swap in is released by it, too.
        self._thread.join()
