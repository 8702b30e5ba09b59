"""The one owner of a model: every caller's images reach the engine through it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ls_yolo.engines import Boxes, Engine, Image


class Owner:
    """Runs an engine for many threads, one call at a time: a YOLO object is not safe to share."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()

    def predict(
        self, images: Sequence[Image], conf: float, iou: float, imgsz: int | None
    ) -> list[Boxes]:
        """See `engines.Engine.predict`."""
        with self._lock:
            return self._engine.predict(images, conf, iou, imgsz)

    def release(self) -> None:
        """Gives the engine's memory back once no call runs."""
        with self._lock:
            self._engine.release()
