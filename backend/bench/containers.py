"""What `make bench` runs in containers: the backend, and loops of ultralytics beside it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client import PASSWORD, Backend, BenchError, Figures

# Prints "ready", then for each line "SECONDS" how many images it predicted in how many seconds.
# ``openvino``, ``torch``: one file after the other. ``track``: frame after frame of a video, by
# OpenVINO. ``batches``: 32 decoded images at a time, in half precision on
# a GPU, as ultralytics has it with half=True.
LOOP = """
import json, sys, time
how, weights, device, task, imgsz, *paths = sys.argv[1:]
import cv2
from ultralytics import YOLO
if weights.endswith(".yaml"):  # the network in its size; what it finds is nothing
    YOLO(weights).save("/tmp/new.pt")
    weights = "/tmp/new.pt"
elif how in ("openvino", "track"):
    import os, shutil
    shutil.copy(weights, "/tmp/weights.pt")
    os.chdir("/tmp")
    weights = YOLO("/tmp/weights.pt").export(format="openvino", dynamic=True, verbose=False)
model = YOLO(weights, task=task)
images = [cv2.imread(path) for path in paths]
asked = {"verbose": False, "device": device, "half": device != "cpu"}
size = {"imgsz": int(imgsz)} if int(imgsz) else {}
count = 0
def step():
    global count
    if how == "batches":
        model.predict([images[n % len(images)] for n in range(32)], **asked)
        count += 32
    elif how == "track":
        for _ in model.track(paths[0], stream=True, tracker="botsort.yaml", verbose=False):
            count += 1
    else:
        model.predict(paths[count % len(paths)], verbose=False, **size)
        count += 1
for _ in range({"batches": 2, "track": 1}.get(how, 2 * len(paths))):
    step()
print("ready", flush=True)
for line in sys.stdin:
    seconds, count, start = float(line), 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
    print(json.dumps([count, time.perf_counter() - start]), flush=True)
"""

# Of the process that serves, which is the largest: megabytes, threads, open files.
LOOK = """
import os, re
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        text = open(f"/proc/{pid}/status").read()
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        continue
    number = lambda name: int((re.search(name + r":\\s+(\\d+)", text) or [0, 0])[1])
    if int(pid) != os.getpid():
        found.append((number("VmRSS") / 1024, number("Threads"), files))
print(*max(found))
"""

ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
USAGE = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || cat /sys/fs/cgroup/cpu.stat"


@dataclass(frozen=True)
class Place:
    """Where containers run: the image, and the arguments of ``docker run`` that all of them get."""

    image: str
    arguments: Sequence[str]


def docker(*arguments: str, check: bool = True, environ: Mapping[str, str] | None = None) -> str:
    """What docker answers. ``environ``: what ``-e NAME`` without a value stands for, since anybody
    on the machine can read a command line."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, **(environ or {})},
    )  # fmt: skip
    if check and done.returncode:
        raise BenchError(f"docker {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def named(environ: Mapping[str, str]) -> list[str]:
    """Arguments of ``docker run`` that name the variables alone."""
    return [word for name in environ for word in ("-e", name)]


def cpu_seconds(name: str) -> float:
    """What the container ``name`` has taken of CPUs so far."""
    found = docker("exec", name, "sh", "-c", USAGE).split()
    return int(found[0]) / 1e9 if found[0].isdigit() else int(found[1]) / 1e6


@contextlib.contextmanager
def loop(
    place: Place,
    how: str,
    weights: str,
    device: str,
    paths: Sequence[str],
    task: str = "detect",
    imgsz: int = 0,
) -> Iterator[Callable[[float], Figures]]:
    """Yields what runs a loop of ultralytics for so many seconds; ``how`` as in `LOOP`. ``imgsz``:
    in pixels; 0: the weights' own."""
    name = f"ls-yolo-bench-loop-{how}-{time.time_ns()}"
    command = ["docker", "run", "--rm", "-i", "--name", name, *place.arguments, place.image]
    process = subprocess.Popen(
        [*command, "python3", "-c", LOOP, how, weights, device, task, str(imgsz), *paths],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    into, out = process.stdin, process.stdout

    def run(seconds: float) -> Figures:
        used = cpu_seconds(name)
        into.write(f"{seconds}\n")
        into.flush()
        count, passed = json.loads(out.readline())
        return {
            "images_per_second": count / passed,
            "ms": passed / count * 1000,
            "cpu_ms_per_image": (cpu_seconds(name) - used) / count * 1000,
        }

    try:
        if not any(line.strip() == "ready" for line in out):
            raise BenchError(f"the loop ({how}, {weights}) did not start in {place.image}")
        yield run
    finally:
        into.close()
        process.wait()


@contextlib.contextmanager
def backend(
    place: Place, environ: Sequence[str], urls: Sequence[str]
) -> Iterator[tuple[Backend, str]]:
    """The service, once it is ready, with settings (NAME=VALUE), and its container's name."""
    variables = {
        "LABEL_STUDIO_API_KEY": "",
        "BASIC_AUTH_USER": "bench",
        "BASIC_AUTH_PASS": PASSWORD,
        "LOG_LEVEL": "WARNING",
        **dict(variable.split("=", 1) for variable in environ),
    }
    name = docker("run", "-d", *place.arguments, *named(variables), place.image, environ=variables)
    try:
        # As Label Studio reaches it, which no proxy of a published port is in the way of.
        address = docker("inspect", "-f", ADDRESS, name)
        service = Backend((address, 9090), urls, lambda: cpu_seconds(name))
        running = "{{.State.Running}}"
        if not service.wait(lambda: docker("inspect", "-f", running, name) == "true"):
            raise BenchError(f"the backend is not ready; its log ends with\n{_log(name)}")
        try:
            yield service, name
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{error}; the backend's log ends with\n{_log(name)}") from error
    finally:
        docker("rm", "-f", name, check=False)


def look(name: str) -> Figures:
    """Megabytes, threads and open files of the process that serves in the container ``name``."""
    found = docker("exec", name, "python3", "-c", LOOK).split()
    return dict(zip(("megabytes", "threads", "files"), map(float, found), strict=True))


def _log(name: str) -> str:
    done = subprocess.run(
        ["docker", "logs", "--tail", "20", name], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def put(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, readable by the container's user."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.chmod(0o644)
    partial.replace(path)
