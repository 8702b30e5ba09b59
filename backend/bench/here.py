"""`bench.py --here`: the backend's parts one by one, on this machine, without containers.

Made for a GPU that is at hand for minutes: any Python from 3.11 with torch, torchvision, OpenCV and
what the backend imports. It fetches nothing, takes --minutes at most, and writes each figure to
--json as soon as it is known, so that what is cut short is not lost. Without a GPU (--device cpu)
what needs one says so.

decode   an image by Pillow, by OpenCV, by the backend, and on the GPU: milliseconds
engine   the engine alone, in batches of 1 to 64, in full and in half precision: images a second
boxes    half precision and the device against full precision on the CPU: overlap and scores
http     the whole service with 1, 8 and 16 clients, a task and 8 tasks each: images a second
memory   the GPU's memory is filled until batches are halved: the batch that is left, and that boxes
         stay the same
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "backend")]

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir()) / "ultralytics"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from client import PASSWORD, Backend, BenchError  # noqa: E402
from PIL import Image as PillowImage  # noqa: E402

PACKAGES = ("torch", "torchvision", "ultralytics", "opencv-python-headless", "pillow", "numpy",
            "flask", "gunicorn", "label-studio-sdk")  # fmt: skip
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SIZES = ((640, 480), (1920, 1080), (4000, 3000))
"""Width and height, in pixels, of the images that are decoded."""
STEP = 1.0
"""Seconds that a figure is measured for."""
SPARE = 300 << 20
"""Bytes of the GPU's memory that are left free where batches must be halved."""


def timed(step: Callable[[], Any], seconds: float = STEP) -> float:
    """Seconds that ``step`` takes, the median over ``seconds``; once before, uncounted."""
    step()
    took, until = [], time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        began = time.perf_counter()
        step()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


class Bench:
    """What is measured, and the report that grows. ``device``: cpu or cuda:0."""

    def __init__(self, options: argparse.Namespace, device: str, until: float) -> None:
        self.options = options
        self.device = device
        self.until = until
        self.gpu = device != "cpu"
        self.report: dict[str, Any] = {"device": device, "versions": versions(), "parts": {}}
        paths = sorted(options.images.glob("*.jpg"))
        if not paths:
            raise BenchError(f"{options.images}: found no .jpg, expected images; see --images")
        self.paths = paths
        self.images = [image for path in paths if (image := cv2.imread(str(path))) is not None]

    def save(self) -> None:
        self.options.json.parent.mkdir(parents=True, exist_ok=True)
        self.options.json.write_text(json.dumps(self.report, indent=2) + "\n")

    def run(self, parts: Sequence[str]) -> None:
        for name in parts:
            if time.monotonic() > self.until:
                self.report["parts"][name] = {"skipped": "no time was left; see --minutes"}
                continue
            began = time.monotonic()
            try:
                found = PARTS[name](self)
            except Exception as error:  # the other parts are worth having
                found = {"failed": f"{type(error).__name__}: {error}"}
            self.report["parts"][name] = found
            print(f"{name} ({time.monotonic() - began:.0f} s): {json.dumps(found)}", flush=True)
            self.save()

    def engine(self, precision: str, device: str | None = None) -> Any:
        from ls_yolo.engines.torch_engine import TorchEngine

        engine = TorchEngine(self.options.weights, device or self.device, precision=precision)
        engine.warm_up()
        return engine

    @property
    def precisions(self) -> tuple[str, ...]:
        """On a CPU torch computes in full precision whatever is asked for."""
        return ("f32", "auto") if self.gpu else ("f32",)


def decode(bench: Bench) -> dict[str, Any]:
    from ls_yolo.images import decode as ours

    found: dict[str, Any] = {}
    for width, height in SIZES:
        image = cv2.resize(bench.images[0], (width, height))
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        ways: dict[str, Callable[[], Any]] = {
            "pillow": lambda data=data: np.asarray(  # type: ignore[misc]
                PillowImage.open(io.BytesIO(data)).convert("RGB")
            ),
            "opencv": lambda data=data: cv2.imdecode(  # type: ignore[misc]
                np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR
            ),
            "backend": lambda data=data: ours.decode(data),  # type: ignore[misc]
            "backend, DECODE_REDUCED": lambda data=data: ours.decode_near(data, 640),  # type: ignore[misc]
        }
        if bench.gpu:
            ways["torchvision on the GPU"] = on_gpu(data, 1)
            ways["torchvision on the GPU, 8 at a time"] = on_gpu(data, 8)
        figures = {name: 1000 * timed(way) for name, way in ways.items()}
        if bench.gpu:
            figures["torchvision on the GPU, 8 at a time"] /= 8
        found[f"{width}x{height} ms"] = figures
    return found


def on_gpu(data: bytes, count: int) -> Callable[[], Any]:
    import torch
    from torchvision.io import decode_jpeg  # type: ignore[import-untyped,unused-ignore]

    tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for _ in range(count)]

    def step() -> None:
        decode_jpeg(tensors if count > 1 else tensors[0], device="cuda")
        torch.cuda.synchronize()

    return step


def engine(bench: Bench) -> dict[str, Any]:
    return {precision: rates(bench, precision) for precision in bench.precisions}


def rates(bench: Bench, precision: str) -> dict[str, Any]:
    one = bench.engine(precision)
    # Of one shape, as a camera's are: a batch of unlike shapes is several.
    items = [one.prepare(bench.images[0], None)] * max(BATCHES)
    sizes = BATCHES if bench.gpu else BATCHES[:4]
    found = {
        "engine": one.description,
        "images per second by batch": {
            size: size / timed(lambda size=size: one.predict(items[:size], 0.25, 0.7))  # type: ignore[misc]
            for size in sizes
        },
        "prepare ms": 1000 * timed(lambda: one.prepare(bench.images[0], None)),
    }
    one.release()
    return found


def boxes(bench: Bench) -> dict[str, Any]:
    truth = bench.engine("f32", "cpu")
    wanted = [truth.predict([truth.prepare(i, None)], 0.25, 0.7)[0] for i in bench.images]
    truth.release()
    found: dict[str, Any] = {}
    for precision in bench.precisions:
        one = bench.engine(precision)
        answers = [one.predict([one.prepare(i, None)], 0.25, 0.7)[0] for i in bench.images]
        found[precision] = agreement(wanted, answers)
        one.release()
        del one
    return found


def agreement(wanted: Sequence[Any], found: Sequence[Any]) -> dict[str, float]:
    """The least overlap and the largest difference of scores over boxes that are nearest, and how
    many boxes have none."""
    overlap, apart, alone = 1.0, 0.0, 0
    for one, other in zip(wanted, found, strict=True):
        alone += abs(len(one.scores) - len(other.scores))
        for box, score, kind in zip(one.xyxy, one.scores, one.classes, strict=True):
            same = [
                (iou(box, b), abs(float(score - s)))
                for b, s, k in zip(other.xyxy, other.scores, other.classes, strict=True)
                if k == kind
            ]
            best = max(same, default=(0.0, 1.0))
            if best[0] < 0.5:
                alone += 1
                continue
            overlap, apart = min(overlap, best[0]), max(apart, best[1])
    return {"least IoU": overlap, "largest difference of scores": apart, "boxes alone": alone}


def iou(one: Any, other: Any) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(box[2:] - box[:2])) for box in (one, other))
    return shared / (areas - shared) if areas > shared else 0.0


def http(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with service(bench) as asked:
        asked.run(8, 1, STEP)
        for clients, tasks in ((1, 1), (8, 1), (16, 1), (1, 8), (8, 8), (16, 8)):
            if time.monotonic() > bench.until:
                break
            found[f"{clients} clients, {tasks} tasks"] = asked.run(clients, tasks, 3 * STEP)
        found["engine"] = asked.engine
    return found


@contextlib.contextmanager
def service(bench: Bench) -> Iterator[Backend]:
    """The whole backend under gunicorn, on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ls-yolo-bench-") as folder:
        models = Path(folder) / "models"
        models.mkdir()
        (models / "weights.pt").write_bytes(bench.options.weights.read_bytes())
        (models / "models.yaml").write_text("n: {weights: weights.pt, conf: 0.25}\n")
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "backend"),
            "PORT": str(port),
            "MODELS_CONFIG": str(models / "models.yaml"),
            "MODEL_ROOT": str(models),
            "MODEL_DIR": str(Path(folder) / "data"),
            "LOCAL_FILES_DOCUMENT_ROOT": str(bench.options.images),
            "BASIC_AUTH_USER": "bench",
            "BASIC_AUTH_PASS": PASSWORD,
            "LABEL_STUDIO_API_KEY": "",
            "ENGINE": "torch",
            "DEVICE": bench.device,
            "THREADS": "32",
            "BATCH_SIZE": "32" if bench.gpu else "8",
            "DECODE_THREADS": str(min(16, os.cpu_count() or 4)),
            "LOG_LEVEL": "WARNING",
        }
        words = ["--config", "python:ls_yolo.server.gunicorn_conf"]
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *words, "ls_yolo.server.app:create_app()"],
                env=environ, stdout=out, stderr=out, cwd=folder,
            )  # fmt: skip
        try:
            urls = [f"/data/local-files/?d={path.name}" for path in bench.paths]
            asked = Backend(("127.0.0.1", port), urls, lambda: cpu_seconds(process.pid))
            if not asked.wait(lambda: process.poll() is None):
                raise BenchError(f"the backend is not ready: {log.read_text()[-2000:]}")
            yield asked
        finally:
            process.terminate()
            process.wait(60)


def cpu_seconds(parent: int) -> float:
    """What a process and its children have taken of CPUs so far."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after = stat.read_text().rpartition(")")[2].split()
            if parent in (int(stat.parent.name), int(after[1])):
                total += int(after[11]) + int(after[12])
    return total / tick


def memory(bench: Bench) -> dict[str, Any]:
    if not bench.gpu:
        return {"skipped": "needs a GPU, whose memory can be filled"}
    import torch

    one = bench.engine("auto")
    items = [one.prepare(bench.images[0], None)] * max(BATCHES)
    before = one.predict(items, 0.25, 0.7)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - SPARE), dtype=torch.uint8, device="cuda")
    began = time.perf_counter()
    after = one.predict(items, 0.25, 0.7)
    took = time.perf_counter() - began
    del taken
    answer = {
        "memory of the GPU, MB": total >> 20,
        "left free, MB": SPARE >> 20,
        "largest batch afterwards": one._parts.limit,
        "seconds for 64 images": took,
        **agreement(before, after),
    }
    one.release()
    return answer


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "decode": decode,
    "engine": engine,
    "boxes": boxes,
    "http": http,
    "memory": memory,
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench.py --here",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", default="", help="cpu, or cuda:0; else the GPU if there is one")
    parser.add_argument("--minutes", type=float, default=4.5, help="no part begins after these")
    parser.add_argument("--weights", type=Path, default=ROOT / "models" / "yolov8n.pt")
    parser.add_argument("--images", type=Path, default=ROOT / "datasets" / "demo")
    parser.add_argument("--json", type=Path, default=ROOT / "artifacts" / "bench-here.json")
    options = parser.parse_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"found {unknown[0]!r}, expected {', '.join(PARTS)}")
    if not options.weights.is_file():
        parser.error(f"{options.weights} is not there: python3 scripts/demo.py fetches it")
    until = time.monotonic() + 60 * options.minutes
    print(json.dumps(versions()), flush=True)  # first: what was measured with
    import torch

    device = options.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    bench = Bench(options, device, until)
    bench.report["gpu"] = torch.cuda.get_device_name(0) if bench.gpu else ""
    bench.report["cores"] = len(os.sched_getaffinity(0))
    bench.run(options.parts or list(PARTS))
    bench.save()
    failed = [name for name, found in bench.report["parts"].items() if "failed" in found]
    print(f"{options.json}: written" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0
