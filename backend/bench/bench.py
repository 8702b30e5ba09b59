#!/usr/bin/env python3
"""`make bench`: the backend against a bare loop over the same photographs, side by side in one run.

    bench.py [--seconds N] [--cpus 0,1] [--json FILE] [--env NAME=VALUE]...

Starts the backend's image twice on the same two cores, once as the service and once for the bare
loop (``YOLO(weights).predict(file)`` in one process, with what the engine of the service runs), and
takes turns between the ways to ask, several rounds each, so that a busy machine slows all alike.
Prints a table; ``--json`` keeps the figures of every round.

The demo's weights and photographs must be there: `make up` or `make images` fetches them.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import common  # noqa: E402

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="l" toName="image">'
    '<Label value="person"/><Label value="bus"/></RectangleLabels></View>'
)
PASSWORD = "bench"

# Runs in a container of its own: prints "ready", then for each line "go SECONDS" how many images it
# predicted in how many seconds.
LOOP = """
import glob, json, os, sys, time
from pathlib import Path
kind, paths = sys.argv[1], sys.argv[2:]
from ultralytics import YOLO
weights = "/models/yolov8n.pt"
if kind == "openvino":
    import shutil
    shutil.copy(weights, "/tmp/yolov8n.pt")
    os.chdir("/tmp")
    weights = YOLO("/tmp/yolov8n.pt").export(format="openvino", dynamic=True, verbose=False)
model = YOLO(weights, task="detect")
for path in paths * 2:
    model.predict(path, verbose=False)
print("ready", flush=True)
for line in sys.stdin:
    seconds, count, start = float(line), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        model.predict(paths[count % len(paths)], verbose=False)
        count += 1
    print(json.dumps([count, time.perf_counter() - start]), flush=True)
"""


def docker(*arguments: str) -> list[str]:
    return ["docker", *arguments]


class Backend:
    """The service on the port ``port`` of loopback."""

    def __init__(self, port: int, urls: list[str]) -> None:
        self._port = port
        self._urls = itertools.cycle(urls)
        self._lock = threading.Lock()
        both = base64.b64encode(f"bench:{PASSWORD}".encode()).decode()
        self._headers = {"Authorization": f"Basic {both}", "Content-Type": "application/json"}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=100)

    def get(self, path: str) -> Any:
        connection = self.connect()
        connection.request("GET", path, headers=self._headers)
        with contextlib.closing(connection):
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None

    def predict(self, connection: http.client.HTTPConnection, tasks: int) -> None:
        with self._lock:
            urls = [next(self._urls) for _ in range(tasks)]
        body = {"tasks": [{"data": {"image": url}} for url in urls], "label_config": CONFIG}
        connection.request("POST", "/predict", json.dumps(body), self._headers)
        answer = connection.getresponse()
        found = json.loads(answer.read())
        if answer.status != 200 or any(result["score"] is None for result in found["results"]):
            raise SystemExit(f"the backend answered {answer.status}: {str(found)[:500]}")

    def run(self, clients: int, tasks: int, seconds: float) -> dict[str, float]:
        """Images a second and milliseconds an answer, asked by so many clients at a time."""
        until = time.perf_counter() + seconds

        def client(_: int) -> list[float]:
            took = []
            with contextlib.closing(self.connect()) as connection:
                while (start := time.perf_counter()) < until:
                    self.predict(connection, tasks)
                    took.append(time.perf_counter() - start)
            return took

        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            took = [t for found in pool.map(client, range(clients)) for t in found]
        passed = time.perf_counter() - start
        return {
            "images_per_second": len(took) * tasks / passed,
            "ms": statistics.fmean(took) * 1000,  # a mean, as the loop has
        }


@contextlib.contextmanager
def bare_loop(image: str, arguments: list[str], kind: str, paths: list[str]) -> Iterator[Any]:
    """Yields what runs the loop for so many seconds."""
    command = docker("run", "--rm", "-i", *arguments, image, "python3", "-c", LOOP, kind, *paths)
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    into, out = process.stdin, process.stdout

    def run(seconds: float) -> dict[str, float]:
        into.write(f"{seconds}\n")
        into.flush()
        count, passed = json.loads(out.readline())
        return {"images_per_second": count / passed, "ms": passed / count * 1000}

    try:
        for line in out:
            if line.strip() == "ready":
                break
        else:
            raise SystemExit(f"the bare loop ({kind}) did not start in {image}")
        yield run
    finally:
        into.close()
        process.wait()


@contextlib.contextmanager
def backend(
    image: str, arguments: list[str], environ: list[str], urls: list[str]
) -> Iterator[Backend]:
    variables = [
        "LABEL_STUDIO_API_KEY=",
        "BASIC_AUTH_USER=bench",
        f"BASIC_AUTH_PASS={PASSWORD}",
        "LOG_LEVEL=WARNING",
        *environ,
    ]
    command = docker("run", "-d", "-p", "127.0.0.1::9090", *arguments)
    command += [part for variable in variables for part in ("-e", variable)]
    name = subprocess.check_output([*command, image], text=True).strip()
    try:
        port = subprocess.check_output(docker("port", name, "9090/tcp"), text=True)
        service = Backend(int(port.split()[0].rpartition(":")[2]), urls)
        state = docker("inspect", "-f", "{{.State.Running}}", name)
        for _ in range(600):
            with contextlib.suppress(OSError, http.client.HTTPException):
                if service.get("/readyz"):
                    break
            if subprocess.check_output(state, text=True).strip() != "true":
                break
            time.sleep(0.5)
        if not service.get("/readyz"):
            raise OSError("/readyz is no")
        yield service
    except (OSError, http.client.HTTPException, subprocess.CalledProcessError) as error:
        subprocess.run(docker("logs", "--tail", "30", name), check=False)
        raise SystemExit(f"the backend does not answer: {error}") from error
    finally:
        subprocess.run(docker("rm", "-f", name), check=False, stdout=subprocess.DEVNULL)


def engine(service: Backend) -> str:
    """What runs the model by now, as /metrics or /readyz tells it; empty: neither does."""
    found = service.get("/readyz") or {}
    return ", ".join(str(row.get("engine", "")) for row in found.get("models", []))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="of each way, each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpus", default="0,1", help="cores of the service and of the loop")
    parser.add_argument("--image", default=f"ls-yolo/backend:{common.project_version()}")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets")
    parser.add_argument("--source", type=Path, help="a folder with ls_yolo, instead of the image's")
    parser.add_argument("--loop", default="openvino", choices=("openvino", "torch"))
    parser.add_argument("--settle", type=float, default=60, help="seconds to wait for an export")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    photos = sorted((options.datasets / "demo").glob("*.jpg"))
    if not photos or not (options.models / "yolov8n.pt").is_file():
        parser.error("no demo photographs or no yolov8n.pt: python3 scripts/demo.py fetches them")
    arguments = [
        f"--cpuset-cpus={options.cpus}",
        *("-v", f"{options.datasets.resolve()}:/datasets:ro"),
        *("-v", f"{options.models.resolve()}:/models:ro"),
    ]
    if options.source:
        arguments += ["-v", f"{options.source.resolve()}:/app/ls_yolo:ro"]
    paths = [f"/datasets/demo/{photo.name}" for photo in photos]
    urls = [f"/data/local-files/?d=demo/{photo.name}" for photo in photos]
    with (
        backend(options.image, arguments, options.env, urls) as service,
        bare_loop(options.image, arguments, options.loop, paths) as loop,
    ):
        ways: dict[str, Callable[[float], dict[str, float]]] = {
            "bare loop": loop,
            "8 clients, 1 task": lambda seconds: service.run(8, 1, seconds),
            "1 client, 8 tasks": lambda seconds: service.run(1, 8, seconds),
            "1 client, 1 task": lambda seconds: service.run(1, 1, seconds),
        }
        until = time.monotonic() + options.settle
        while time.monotonic() < until and "torch" in engine(service):
            time.sleep(1)  # torch answers until the export is there
        for way in list(ways.values())[1:]:
            way(2)
        rounds: list[dict[str, dict[str, float]]] = []
        for number in range(options.rounds):
            rounds.append({name: way(options.seconds) for name, way in ways.items()})
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        ran = engine(service)
    figures = {
        name: {
            unit: statistics.median(found[name][unit] for found in rounds)
            for unit in ("images_per_second", "ms")
        }
        for name in ways
    }
    bare = figures["bare loop"]["images_per_second"]
    print(
        f"{options.image}, {ran or 'engine not told'}, cores {options.cpus}, {len(photos)} photos"
    )
    print(f"{'':20}{'images/s':>10}{'of bare':>9}{'ms an answer':>14}")
    for name, found in figures.items():
        rate = found["images_per_second"]
        print(f"{name:20}{rate:10.1f}{rate / bare:9.2f}{found['ms']:14.1f}")
    if options.json:
        report = {"engine": ran, "cpus": options.cpus, "figures": figures, "rounds": rounds}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
