"""The application as the environment asks for it, on the fake engine: for `test_service`.

The file ``FAKE_SECONDS`` has what the engine takes for an image, and what it takes to load; a dot
for each image is added to the file ``FAKE_CALLS``.
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
from ls_yolo.results import Result
from ls_yolo.server import app

SECONDS, CALLS = Path(os.environ["FAKE_SECONDS"]), Path(os.environ["FAKE_CALLS"])


def seconds(which: int) -> float:
    return float(SECONDS.read_text().split()[which])


class SlowEngine(FakeEngine):
    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        time.sleep(seconds(0) * len(prepared))
        with CALLS.open("a") as file:
            file.write("." * len(prepared))
        return super().predict(prepared, conf, iou)


def create_app() -> Flask:
    def load(weights: Path, *more: Any, **options: Any) -> SlowEngine:
        time.sleep(seconds(1))
        return SlowEngine(weights, [])

    loader.load_engine = load  # type: ignore[assignment]
    return app.create_app()
