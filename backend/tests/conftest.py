"""What the backend's unit tests share. The one thing that is not real is the engine: no torch here.

A weights file of these tests is JSON: ``names`` (class index to class name), ``boxes`` (left, top,
right, bottom in pixels, score, class index) and ``fails`` (widths of images that break the engine).
``task`` is detect unless it says segment, with a mask of each box, or classify, with ``scores``.
That of a SAM has any content: it outlines a square around what is pointed at.
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

from ls_yolo.engines import base
from ls_yolo.engines import load as loader
from ls_yolo.engines.base import Embedding, Prepared, Spot
from ls_yolo.models.config import Source
from ls_yolo.results import Boxes, Classes, Image, Mask, Masks, Result
from ls_yolo.serving.loading import Loader
from ls_yolo.serving.registry import Options, Registry

# Machines are shared and slow; what hypothesis finds is kept in a test, not in a database. The same
# examples each time: a change is to blame for what fails, or nothing is.
settings.register_profile("ls-yolo", deadline=None, database=None, derandomize=True)
settings.load_profile("ls-yolo")


def pytest_collection_finish() -> None:
    """Takes what was imported out of the garbage collector's sight: a registry that is closed has
    all of it looked through, which would take longer than the tests themselves."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class FakeImage(Prepared):
    imgsz: int | None
    decoded: tuple[int, int]


class FakeEngine:
    """Stands in for torch: every image has the boxes of the weights file that exceed ``conf``."""

    description = "fake, cpu"
    calls: list[dict[str, Any]]
    imgsz = 640
    slots = 1

    def __init__(self, weights: Path, calls: list[dict[str, Any]]) -> None:
        try:
            content = json.loads(weights.read_text())
        except ValueError as error:
            raise base.EngineError(f"{weights}: cannot be loaded: {error}") from error
        self.names = {int(index): name for index, name in content["names"].items()}
        self._boxes = sorted(content.get("boxes", []), key=lambda box: -box[4])
        self._fails = content.get("fails", [])
        self.task = content.get("task", "detect")
        self._scores = content.get("scores", [])
        self._weights = weights.name
        self.calls = calls

    def warm_up(self) -> None:
        self.calls.append({"weights": self._weights, "warm_up": True})

    def prepare(
        self, image: Image, imgsz: int | None, size: tuple[int, int] | None = None
    ) -> Prepared:
        height, width = image.shape[:2]
        return FakeImage(*(size or (width, height)), imgsz, (width, height))

    def predict(self, prepared: Sequence[Prepared], conf: float, iou: float) -> list[Result]:
        self.calls.append(
            {
                "weights": self._weights,
                "count": len(prepared),
                "conf": conf,
                "iou": iou,
                "imgsz": {image.imgsz for image in prepared if isinstance(image, FakeImage)},
                "decoded": [image.decoded for image in prepared if isinstance(image, FakeImage)],
            }
        )
        found: list[Result] = []
        for image in prepared:
            if image.width in self._fails or "all" in self._fails:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            rows = np.array(self._boxes, np.float32).reshape(-1, 6)
            boxes = Boxes(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))
            found.append(self._result(boxes).above(conf))
        return found

    def _result(self, boxes: Boxes) -> Result:
        if self.task == "classify":
            return Classes(np.array(self._scores, np.float32))
        if self.task == "segment":
            return Masks(boxes, [partial(self._mask, box) for box in boxes.xyxy.astype(int)])
        return boxes

    def _mask(self, box: Any) -> Mask:
        left, top, right, bottom = box.tolist()
        self.calls.append({"weights": self._weights, "mask": (left, top)})
        return Mask(left, top, np.ones((bottom - top, right - left), np.bool_))

    def release(self) -> None:
        self.calls.append({"weights": self._weights, "release": True})


class FakeSegmenter:
    """Stands in for a SAM: the object is a square of 20 pixels around the first positive click, or
    the box, less what is at or right of the first negative one."""

    def __init__(self, weights: Path, architecture: str, calls: list[dict[str, Any]]) -> None:
        self.description = f"fake, {architecture}"
        self._weights = weights.name
        self.calls = calls

    def warm_up(self) -> None:
        self.calls.append({"weights": self._weights, "warm_up": True})

    def prepare(self, image: Image) -> Prepared:
        return Prepared(image.shape[1], image.shape[0])

    def embed(self, prepared: Prepared) -> Embedding:
        self.calls.append({"weights": self._weights, "embed": (prepared.width, prepared.height)})
        return Embedding(prepared.width, prepared.height)

    def outline(
        self,
        embedding: Embedding,
        spots: Sequence[Spot],
        box: tuple[float, float, float, float] | None,
    ) -> Masks:
        self.calls.append({"weights": self._weights, "spots": list(spots), "box": box})
        if box is None:
            x, y = next((x, y) for x, y, positive in spots if positive)
            box = x - 10, y - 10, x + 10, y + 10
        left, top, right, bottom = map(int, box)
        right = min([right, *(int(x) for x, _, positive in spots if not positive)])
        boxes = Boxes(
            np.array([[left, top, right, bottom]], np.float32),
            np.array([0.8], np.float32),
            np.zeros(1, np.int64),
        )
        return Masks(boxes, [lambda: Mask(left, top, np.ones((bottom - top, right - left), bool))])

    def release(self) -> None:
        self.calls.append({"weights": self._weights, "release": True})


@pytest.fixture
def engine_calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call to an engine, in order; with it, `engines.load` makes a `FakeEngine`, and a
    `FakeSegmenter` of a SAM."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(loader, "load_engine", lambda weights, *_: FakeEngine(weights, calls))
    monkeypatch.setattr(
        loader, "load_sam", lambda weights, kind, *_: FakeSegmenter(weights, kind, calls)
    )
    return calls


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def write_weights(models_dir: Path) -> Callable[..., Path]:
    """Makes a weights file: ``write_weights("a.pt", {0: "person"}, boxes=[...])``."""

    def write(name: str, names: Mapping[int, str], **more: Any) -> Path:
        path = models_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"names": names, **more}))
        return path

    return write


@pytest.fixture
def make_registry(
    models_dir: Path, engine_calls: list[dict[str, Any]]
) -> Iterator[Callable[..., Registry]]:
    """Loads the models of a models.yaml text: ``make_registry("a: {weights: a.pt}")``."""

    def make(
        text: str,
        *,
        default: str = "",
        custom: bool = False,
        conf: float = 0.5,
        **options: Any,
    ) -> Registry:
        path = models_dir / "models.yaml"
        path.write_text(text)
        source = Source(path, models_dir, conf)
        made.append(Registry(source, Loader(), default, custom, Options(**options)))
        return made[-1]

    made: list[Registry] = []
    yield make
    for one in made:
        one.close()


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    (folder / "demo").mkdir(parents=True)
    return folder


@pytest.fixture
def write_image(datasets: Path) -> Callable[..., str]:
    """Puts a picture in the datasets folder; returns the URL that Label Studio writes for it."""

    def write(name: str = "demo/a.jpg", width: int = 200, height: int = 100) -> str:
        path = datasets / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
        return f"/data/local-files/?d={name}"

    return write


@pytest.fixture
def loopback() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], ThreadingHTTPServer]]:
    """Starts a server on 127.0.0.1 that answers as a handler does."""
    running = []

    def serve(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        quiet = type("Quiet", (handler,), {"log_message": lambda *arguments: None})
        server = ThreadingHTTPServer(("127.0.0.1", 0), quiet)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        running.append((server, thread))
        return server

    yield serve
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()
