#!/usr/bin/env python3
"""`make bench`: the backend against loops of ultralytics, side by side in one run.

    bench.py [speed] [tasks] [video] [clicks] [batches] [requests] [swap] [bulk]
                                      all if none is named; batches only with a GPU
    bench.py --here [--device cpu]    without containers: see here.py

speed     yolov8n on the CPU: 8 clients, 8 tasks in a request, one of each, and a model.py
          that loads its weights in each request, against `YOLO(openvino).predict(file)` in one
          process.
batches   16 clients with 8 tasks each, two models, against `YOLO.predict` on 32 decoded images at a
          time: on a GPU where there is one, else (by name) on the CPU.
tasks     a model for each task, 8 clients, regions made, against the same loop.
video     a clip, followed, against `YOLO(openvino).track(stream=True)`; memory after each round.
clicks    milliseconds until a smart tool is answered, by the project's own model and by a SAM.
requests  memory, threads and open files after --requests requests against those after 1,000.
swap      weights are replaced under load: no request may fail, and each answer must be of the
          weights whose version it carries.
bulk      --images tasks of a project, predicted and stored by `ls-yolo prelabel`, against what the
          backend itself answers on the same images; with Label Studio, on SQLite or --postgres.

Ways to ask take turns, several rounds each, so that a busy machine slows all alike. A table is
printed; --json and --svg keep all figures and a picture of bars. The exit code is 1 if a target is
missed. The demo's weights and images must be there: `make up` or `make images` fetches them.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(HERE)]

import bars  # noqa: E402
import bulk  # noqa: E402
import controls  # noqa: E402
from client import Backend, BenchError  # noqa: E402
from containers import backend, look, loop, put  # noqa: E402
from stage import SETTLE, WEIGHTS, Part, Stage, Way, ratio, turns  # noqa: E402

from lib import versions  # noqa: E402

LARGER = "yolov8l.yaml"
EARLY = 1000
"""Requests after which memory is first looked at."""
MOST_CLIENTS = 14
"""As many requests for predictions as the backend serves at a time, unless told otherwise."""
QUIET = 3.0
"""Seconds after which connections that were closed take no file any longer."""

# Makes a second model of the first: its scores are others, so that answers tell the two apart.
OTHER = """
import sys
from ultralytics import YOLO
model = YOLO("/models/yolov8n.pt")
for branch in model.model.model[-1].cv3:
    branch[-1].bias.data += 1.0
model.save("/out/other.pt")
"""
# A network in its size, of random weights: it costs the same, and nothing is fetched.
RANDOM = """
import sys
from ultralytics import YOLO
YOLO(sys.argv[1]).save("/out/larger.pt")
"""


def speed(stage: Stage) -> Part:
    options = stage.options
    bare, each = "bare loop", "weights loaded in each request"
    part = Part("yolov8n on the CPU", theirs=(bare, each))
    with (
        backend(stage.place(), stage.environ, stage.urls) as (service, _),
        backend(
            stage.place(), [*stage.environ, "MODEL_CLASS=torch_each:TorchEach"], stage.urls
        ) as (seed, _),
        loop(stage.place(), options.loop, f"/models/{WEIGHTS}", "cpu", stage.paths) as run,
    ):
        ways: dict[str, Way] = {
            bare: run,
            "8 clients, 1 task": lambda seconds: service.run(8, 1, seconds),
            "1 client, 8 tasks": lambda seconds: service.run(1, 8, seconds),
            "1 client, 1 task": lambda seconds: service.run(1, 1, seconds),
            each: lambda seconds: seed.run(8, 1, seconds),
        }
        service.settle(options.expect, SETTLE)
        turns(ways, options, part)
        part.ran = service.engine
    extra = statistics.median(
        found["1 client, 1 task"]["ms"] - found[bare]["ms"] for found in part.rounds
    )
    eight, together = (ratio(part, way, bare) for way in ("8 clients, 1 task", "1 client, 8 tasks"))
    against = ratio(part, "8 clients, 1 task", each)
    part.targets = {
        f"8 clients: {eight:.2f} of the bare loop, at least 1.0": eight >= 1,
        f"8 tasks in a request: {together:.2f} of the bare loop, at least 1.0": together >= 1,
        f"1 client, 1 task: the bare loop's time and {extra:.1f} ms, at most 4": extra <= 4,
        f"{against:.1f} times what loads its weights in each request, at least 2.5": against >= 2.5,
    }
    return part


def batches(stage: Stage) -> Part:
    options = stage.options
    device = options.device or ("cuda" if has_gpu() else "cpu")
    on_gpu = device != "cpu"
    part = Part(f"{options.clients} clients, {options.tasks} tasks each, on {device}")
    stage.make(RANDOM, "larger.pt", options.larger)
    (stage.models / "models.yaml").write_text(
        f"n: {{weights: {WEIGHTS}, conf: 0.25}}\n"
        # A new network's classes have no names.
        "larger: {weights: larger.pt, conf: 0.25, names: {0: person, 5: bus}}\n"
    )
    # The same engine as the loop's, so that what is compared is all around it.
    settings = [*stage.environ, "ENGINE=torch", f"DEVICE={device}", "THREADS=32", "BATCH_SIZE=32"]
    theirs, ratios = [], {}
    place = stage.place(gpu=on_gpu)
    with contextlib.ExitStack() as stack:
        service, _ = stack.enter_context(backend(place, settings, stage.urls))
        ways: dict[str, Way] = {}
        for name, weights in (("n", WEIGHTS), ("larger", "larger.pt")):
            label = "yolov8n" if name == "n" else Path(options.larger).stem
            run = stack.enter_context(
                loop(place, "batches", f"/models/{weights}", device, stage.paths)
            )
            ways[f"{label}, predict of 32"] = run
            ways[f"{label}, backend"] = lambda seconds, name=name: service.run(  # type: ignore[misc]
                options.clients, options.tasks, seconds, name
            )
            theirs.append(f"{label}, predict of 32")
        turns(ways, options, part)
        part.ran = service.engine
    part.theirs = tuple(theirs)
    for name in theirs:
        label = name.partition(",")[0]
        ratios[label] = ratio(part, f"{label}, backend", name)
    part.targets = {
        f"{label}: {found:.2f} of predict on batches of 32, at least 0.9": found >= 0.9
        for label, found in ratios.items()
    }
    return part


def requests(stage: Stage) -> Part:
    total = stage.options.requests
    if total <= EARLY:
        raise BenchError(f"--requests: found {total}, expected more than {EARLY}")
    part = Part(f"{total} requests")
    with backend(stage.place(), stage.environ, stage.urls) as (service, container):
        service.settle(stage.options.expect, SETTLE)
        # Pools start a thread when all they have are busy: so all are, once.
        ask_times(service, EARLY // 5, MOST_CLIENTS)
        for name, count in (
            (f"after {EARLY}", EARLY - EARLY // 5),
            (f"after {total}", total - EARLY),
        ):
            ask_times(service, count)
            time.sleep(QUIET)
            part.figures[name] = look(container)
            print(f"{name} requests: {part.figures[name]}", file=sys.stderr)
        part.ran = service.engine
    early, late = part.figures.values()
    grown = late["megabytes"] / early["megabytes"] - 1
    part.targets = {
        f"memory: {100 * grown:+.1f} %, at most +3": grown <= 0.03,
        f"threads: {late['threads']:g} after {early['threads']:g}": late["threads"]
        <= early["threads"],
        f"open files: {late['files']:g} after {early['files']:g}": late["files"] <= early["files"],
    }
    return part


def ask_times(service: Backend, count: int, clients: int = 8) -> None:
    """Asks ``count`` times for one image, so many clients at a time."""
    left, lock = iter(range(count)), threading.Lock()

    def client(connection: http.client.HTTPConnection) -> None:
        while True:
            with lock:
                if next(left, None) is None:
                    return
            service.ask(connection, service.urls_of(1))

    service.clients(clients, client)


def swap(stage: Stage) -> Part:
    """Replaces the weights under load; see the top of the file."""
    times = stage.options.swaps
    part = Part(f"weights replaced {times} times under load")
    stage.make(OTHER, "other.pt")
    kinds = [(stage.models / file).read_bytes() for file in (WEIGHTS, "other.pt")]
    target = stage.models / "swapped.pt"
    put(target, kinds[0])
    (stage.models / "models.yaml").write_text("swapped: {weights: swapped.pt, conf: 0.25}\n")
    settings = [*stage.environ, "MODEL_POLL_SECONDS=0.5"]
    answers: list[tuple[str, str, list[float]]] = []
    with backend(stage.place(), settings, stage.urls) as (service, _):
        known: dict[str, dict[str, list[float]]] = {}
        for content in kinds:  # what each answers when nothing else goes on, its export made
            before = version(service)
            put(target, content)
            if content is not kinds[0]:
                wait_for(lambda before=before: version(service) != before)  # type: ignore[misc]
            service.settle(stage.options.expect, SETTLE)
            with contextlib.closing(service.connect()) as connection:
                known[version(service)] = {
                    url: scores(service.ask(connection, [url])[0]) for url in service.urls
                }
        done = threading.Event()

        def client(connection: http.client.HTTPConnection) -> None:
            while not done.is_set():
                (url,) = service.urls_of(1)
                (answer,) = service.ask(connection, [url])
                answers.append((url, answer["model_version"], scores(answer)))

        def change() -> None:
            try:
                for number in range(times):
                    before = version(service)
                    put(target, kinds[number % 2])
                    wait_for(lambda before=before: version(service) != before)  # type: ignore[misc]
                    time.sleep(1)
            finally:
                done.set()

        changing = threading.Thread(target=change)
        changing.start()
        service.clients(8, client)
        changing.join()
        part.ran = service.engine
    wrong = [answer for answer in answers if not of_its_version(*answer, known)]
    seen = {name: sum(found == name for _, found, _ in answers) for name in known}
    part.figures = {name: {"answers": count} for name, count in seen.items()}
    part.targets = {
        # One that fails ends the run with what the backend said.
        f"{len(answers)} requests, none failed": True,
        f"answers of both weights: {list(seen.values())}": min(seen.values()) > 0,
        f"{len(wrong)} answers whose boxes and version disagree": not wrong,
    }
    return part


def scores(answer: dict[str, Any]) -> list[float]:
    return sorted((region["score"] for region in answer["result"]), reverse=True)


def of_its_version(
    url: str, name: str, found: Sequence[float], known: dict[str, dict[str, list[float]]]
) -> bool:
    """Whether ``found`` are the scores that the version ``name`` gives, and nobody else's. After a
    swap torch may answer first, whose scores are up to 0.02 away."""

    def away(wanted: Sequence[float]) -> float:
        if len(wanted) != len(found):
            return 1.0
        return max((abs(a - b) for a, b in zip(wanted, found, strict=True)), default=0.0)

    others = [of[url] for other, of in known.items() if other != name]
    return (
        name in known
        and away(known[name][url]) < 0.03
        and all(away(other) > 0.03 for other in others)
    )


def version(service: Backend) -> str:
    found = service.get("/versions") or {}
    return str((found.get("versions") or [""])[0])


def wait_for(holds: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise BenchError("new weights were not taken")
        time.sleep(0.1)


def has_gpu() -> bool:
    """Whether containers can get an NVIDIA GPU here, by its CDI name."""
    if not shutil.which("nvidia-smi"):
        return False
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode == 0


def table(part: Part) -> str:
    lines = [f"{part.title}: {part.ran}"] if part.ran else [part.title]
    units = list(next(iter(part.figures.values()), {}))
    lines.append(f"  {'':32}" + "".join(f"{unit.replace('_', ' '):>20}" for unit in units))
    for name, figures in part.figures.items():
        lines.append(f"  {name:32}" + "".join(f"{figures[unit]:20.1f}" for unit in units))
    lines += [f"  {'reached' if ok else 'MISSED ':8} {text}" for text, ok in part.targets.items()]
    return "\n".join(lines)


def picture(parts: Sequence[Part]) -> str | None:
    """The bars of what was measured in images a second."""
    found = [
        bars.Bar(name, figures["images_per_second"], name not in part.theirs)
        for part in parts
        for name, figures in part.figures.items()
        if "images_per_second" in figures
    ]
    titles = [p.title for p in parts if p.rounds]
    return bars.svg("; ".join(titles), "images a second", found) if found else None


def cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


PARTS = {
    "speed": speed,
    "tasks": controls.tasks,
    "video": controls.video,
    "clicks": controls.clicks,
    "batches": batches,
    "requests": requests,
    "swap": swap,
    "bulk": bulk.bulk,
}


def main() -> int:
    if "--here" in sys.argv[1:]:
        import here

        return here.main([word for word in sys.argv[1:] if word != "--here"])
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, default=4, help="of each way, each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--images", type=int, default=5000, help="of bulk")
    parser.add_argument("--postgres", action="store_true", help="of bulk: Label Studio's database")
    parser.add_argument("--clients", type=int, default=16, help="of batches")
    parser.add_argument("--tasks", type=int, default=8, help="of batches")
    parser.add_argument("--device", default="", help="of batches: cuda, or cpu to try it without")
    parser.add_argument("--larger", default=LARGER, help="of batches: a network of ultralytics")
    parser.add_argument("--cpus", default="0,1", help="cores of the service and of the loop")
    parser.add_argument("--image", default=f"ls-yolo/backend:{versions.project_version()}")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--datasets", type=Path, default=ROOT / "datasets")
    parser.add_argument("--source", type=Path, help="a folder with ls_yolo, instead of the image's")
    parser.add_argument("--loop", default="openvino", choices=("openvino", "torch"))
    parser.add_argument("--expect", default="openvino", help="the engine that must answer")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--json", type=Path, default=ROOT / "artifacts" / "bench.json")
    parser.add_argument("--svg", type=Path, default=ROOT / "artifacts" / "bench.svg")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"found {unknown[0]!r}, expected {', '.join(PARTS)}")
    options.parts = options.parts or [part for part in PARTS if part != "batches" or has_gpu()]
    photos = list((options.datasets / "demo").glob("*.jpg"))
    if not photos or not (options.models / WEIGHTS).is_file():
        parser.error(f"no demo images or no {WEIGHTS}: python3 scripts/demo.py fetches them")
    found: list[Part] = []
    for name in options.parts:
        with tempfile.TemporaryDirectory(prefix="ls-yolo-bench-") as folder:
            Path(folder).chmod(0o755)
            found.append(PARTS[name](Stage(options, Path(folder))))
        print(table(found[-1]), flush=True)
    report = {
        "image": options.image,
        "cpu": cpu_name(),
        "cpus": options.cpus,
        "load_before": os.getloadavg(),
        "parts": [asdict(part) for part in found],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    if drawn := picture(found):
        options.svg.parent.mkdir(parents=True, exist_ok=True)
        options.svg.write_text(drawn)
    return 0 if all(ok for part in found for ok in part.targets.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
