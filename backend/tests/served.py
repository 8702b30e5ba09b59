"""The application as the environment asks for it, on the fake engine: for `test_service`.

``FAKE_SECONDS``: what the engine takes for an image; a dot for each is added to ``FAKE_CALLS``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask

from conftest import FakeEngine
from ls_yolo.engines import load as loader
from ls_yolo.engines.base import Prepared
from ls_yolo.results import Boxes
from ls_yolo.server import app

SECONDS, CALLS = float(os.environ["FAKE_SECONDS"]), Path(os.environ["FAKE_CALLS"])


class SlowEngine(FakeEngine):
    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Boxes]:
        time.sleep(SECONDS * len(prepared))
        with CALLS.open("a") as file:
            file.write("." * len(prepared))
        return super().predict(prepared, conf, iou)


def create_app() -> Flask:
    def load(weights: Path, *more: Any, **options: Any) -> SlowEngine:
        return SlowEngine(weights, [])

    loader.load_engine = load  # type: ignore[assignment]
    return app.create_app()
