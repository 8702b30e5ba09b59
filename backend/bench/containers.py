"""What `make bench` runs in containers: the backend, and loops of ultralytics beside it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="l" toName="image">'
    '<Label value="person"/><Label value="bus"/></RectangleLabels></View>'
)
PASSWORD = "bench"
Figures = dict[str, float]

# Prints "ready", then for each line "SECONDS" how many images it predicted in how many seconds.
# ``file``: one file after the other. ``batches``: 32 decoded images at a time, in half precision on
# a card, as ultralytics has it with half=True.
LOOP = """
import json, sys, time
how, weights, device, *paths = sys.argv[1:]
import cv2
from ultralytics import YOLO
if weights.endswith(".yaml"):  # the network in its size; what it finds is nothing
    YOLO(weights).save("/tmp/new.pt")
    weights = "/tmp/new.pt"
elif how == "openvino":
    import os, shutil
    shutil.copy(weights, "/tmp/weights.pt")
    os.chdir("/tmp")
    weights = YOLO("/tmp/weights.pt").export(format="openvino", dynamic=True, verbose=False)
model = YOLO(weights, task="detect")
images = [cv2.imread(path) for path in paths]
asked = {"verbose": False, "device": device, "half": device != "cpu"}
count = 0
def step():
    global count
    if how == "batches":
        model.predict([images[n % len(images)] for n in range(32)], **asked)
        count += 32
    else:
        model.predict(paths[count % len(paths)], verbose=False)
        count += 1
for _ in range(2 if how == "batches" else 2 * len(paths)):
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


class BenchError(RuntimeError):
    """Something cannot be measured; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where containers run: the image, and the arguments of ``docker run`` that all of them get."""

    image: str
    arguments: Sequence[str]


def docker(*arguments: str, check: bool = True) -> str:
    """What docker answers."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise BenchError(f"docker {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def cpu_seconds(name: str) -> float:
    """What the container ``name`` has taken of processors so far."""
    found = docker("exec", name, "sh", "-c", USAGE).split()
    return int(found[0]) / 1e9 if found[0].isdigit() else int(found[1]) / 1e6


class Backend:
    """The service in the container ``name``, at ``address``."""

    def __init__(self, name: str, address: str, urls: Sequence[str]) -> None:
        self.name = name
        self._address = address
        self.urls = list(urls)
        self._next = itertools.cycle(urls)
        self._lock = threading.Lock()
        both = base64.b64encode(f"bench:{PASSWORD}".encode()).decode()
        self._headers = {"Authorization": f"Basic {both}", "Content-Type": "application/json"}

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, 9090, timeout=100)

    def get(self, path: str) -> Any:
        """The JSON at ``path``; None where the status is not 200."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None

    @property
    def engine(self) -> str:
        """What runs the models by now; empty where /readyz does not tell."""
        found = self.get("/readyz") or {}
        return ", ".join(str(row.get("engine", "")) for row in found.get("models", []))

    def settle(self, wanted: str, seconds: float) -> None:
        """Waits until ``wanted`` runs every model: torch answers until an export is there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.get("/readyz") or {}
            if all(wanted in str(row.get("engine", "")) for row in found.get("models", [])):
                return
            time.sleep(0.5)
        raise BenchError(f"after {seconds:g} s it is {self.engine!r} that runs, not {wanted}")

    def ask(
        self, connection: http.client.HTTPConnection, urls: Sequence[str], model: str = ""
    ) -> list[dict[str, Any]]:
        """A prediction for each image.

        Raises:
            BenchError: the request or a task of it failed.
        """
        body = {"tasks": [{"data": {"image": url}} for url in urls], "label_config": CONFIG}
        path = f"/m/{model}/predict" if model else "/predict"
        connection.request("POST", path, json.dumps(body), self._headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise BenchError(f"the backend answered {answer.status}: {text[:500]!r}")
        results: list[dict[str, Any]] = json.loads(text)["results"]
        if any(result["score"] is None for result in results):
            raise BenchError(f"a task failed: {text[:500]!r}")
        return results

    def urls_of(self, tasks: int) -> list[str]:
        with self._lock:
            return [next(self._next) for _ in range(tasks)]

    def clients(self, number: int, work: Callable[[http.client.HTTPConnection], None]) -> None:
        """Has ``work`` done by so many clients at a time, each on a connection of its own."""

        def one(_: int) -> None:
            with contextlib.closing(self.connect()) as connection:
                work(connection)

        with ThreadPoolExecutor(number) as pool:
            list(pool.map(one, range(number)))

    def run(self, clients: int, tasks: int, seconds: float, model: str = "") -> Figures:
        """Images a second, milliseconds an answer, and what an image takes of processors."""
        took: list[float] = []
        used, start = cpu_seconds(self.name), time.perf_counter()

        def client(connection: http.client.HTTPConnection) -> None:
            while (began := time.perf_counter()) < start + seconds:
                self.ask(connection, self.urls_of(tasks), model)
                took.append(time.perf_counter() - began)

        self.clients(clients, client)
        passed = time.perf_counter() - start
        images = len(took) * tasks
        return {
            "images_per_second": images / passed,
            "ms": statistics.fmean(took) * 1000,  # a mean, as the loop has
            "cpu_ms_per_image": (cpu_seconds(self.name) - used) / images * 1000,
        }

    def look(self) -> Figures:
        """Megabytes, threads and open files of the process that serves."""
        found = docker("exec", self.name, "python3", "-c", LOOK).split()
        return dict(zip(("megabytes", "threads", "files"), map(float, found), strict=True))


@contextlib.contextmanager
def loop(
    place: Place, how: str, weights: str, device: str, paths: Sequence[str]
) -> Iterator[Callable[[float], Figures]]:
    """Yields what runs a loop of ultralytics for so many seconds; ``how`` as in `LOOP`."""
    name = f"ls-yolo-bench-loop-{how}-{time.time_ns()}"
    command = ["docker", "run", "--rm", "-i", "--name", name, *place.arguments, place.image]
    process = subprocess.Popen(
        [*command, "python3", "-c", LOOP, how, weights, device, *paths],
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
def backend(place: Place, environ: Sequence[str], urls: Sequence[str]) -> Iterator[Backend]:
    """The service, once it is ready, with the settings ``environ`` (NAME=VALUE)."""
    variables = [
        "LABEL_STUDIO_API_KEY=",
        "BASIC_AUTH_USER=bench",
        f"BASIC_AUTH_PASS={PASSWORD}",
        "LOG_LEVEL=WARNING",
        *environ,
    ]
    arguments = [part for variable in variables for part in ("-e", variable)]
    name = docker("run", "-d", *place.arguments, *arguments, place.image)
    try:
        # As Label Studio reaches it, which no proxy of a published port is in the way of.
        address = docker("inspect", "-f", ADDRESS, name)
        service = Backend(name, address, urls)
        until = time.monotonic() + 300
        while not _ready(service):
            running = docker("inspect", "-f", "{{.State.Running}}", name) == "true"
            if not running or time.monotonic() > until:
                raise BenchError(f"the backend is not ready; its log ends with\n{_log(name)}")
            time.sleep(0.5)
        try:
            yield service
        except (OSError, http.client.HTTPException) as error:
            raise BenchError(f"{error}; the backend's log ends with\n{_log(name)}") from error
    finally:
        docker("rm", "-f", name, check=False)


def _ready(service: Backend) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return service.get("/readyz") is not None
    return False


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
