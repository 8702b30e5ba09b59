"""`make bench ARGS=bulk`: bulk predictions of a project against what the backend itself answers."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from client import PASSWORD, Backend, BenchError, Figures
from containers import backend, cpu_seconds, docker, look, named
from PIL import Image
from stage import SETTLE, Part, Stage, ratio

TITLE = "Bulk"
SIDE = 640
"""The longer side of the images, in pixels."""
CLIENTS, TASKS = 4, 8
"""As many requests at a time as `ls-yolo prelabel` has, with as many tasks."""
FLAT = 40.0
"""Megabytes that a process may grow by over the second half of a run."""
STARTS = 600
"""Seconds that Label Studio may take for its first start."""


@dataclass
class Deployment:
    """Label Studio and what stands beside it, in containers on a network of their own."""

    stage: Stage
    folder: Path
    network: str
    containers: list[str] = field(default_factory=list)
    studio: str = ""

    def start(self, image: str, alias: str, environ: Mapping[str, str], *more: str) -> str:
        """Starts a container that others reach as ``alias``; returns its id."""
        name = docker(
            "run", "-d", "--network", self.network, "--network-alias", alias,
            f"--cpuset-cpus={self.stage.options.cpus}", *named(environ), *more, image,
            environ=environ,
        )  # fmt: skip
        self.containers.append(name)
        return name

    @property
    def settings(self) -> dict[str, str]:
        """What `ls-yolo` needs to reach both services."""
        return {
            "LABEL_STUDIO_URL": "http://label-studio:8080",
            "LABEL_STUDIO_API_KEY": TOKEN,
            "BACKEND_URL": "http://backend:9090",
            "BASIC_AUTH_USER": "bench",
            "BASIC_AUTH_PASS": PASSWORD,
            "MODEL_DIR": "/tmp/models",
        }

    def tool(self, *words: str, detach: bool = False) -> str:
        """Runs `ls-yolo` beside the services; returns what it prints, or its container."""
        return docker(
            "run", "-d" if detach else "--rm", "--network", self.network,
            *(() if detach else ("-i",)),
            f"--cpuset-cpus={self.stage.options.cpus}", *named(self.settings),
            "-v", f"{self.folder}/projects:/projects:ro",
            "-v", f"{self.folder}/datasets:/datasets:ro",
            self.stage.options.image, "ls-yolo", *words, environ=self.settings,
        )  # fmt: skip

    def forget(self, version: str) -> None:
        """Deletes all predictions: each round begins without any."""
        code = (
            "import os; from ls_yolo.labelstudio.bulk import Calls\n"
            "from ls_yolo.labelstudio.client import Studio\n"
            "from ls_yolo.labelstudio.lookup import find_project\n"
            "s = Studio(os.environ['LABEL_STUDIO_URL'], os.environ['LABEL_STUDIO_API_KEY'])\n"
            f"calls, p = Calls(s), find_project(s, {TITLE!r}).id\n"
            f"while calls.delete(p, {version!r}): pass"
        )
        docker("run", "--rm", "--network", self.network, *named(self.settings),
               self.stage.options.image, "python3", "-c", code, environ=self.settings)  # fmt: skip


TOKEN = secrets.token_hex(20)


def bulk(stage: Stage) -> Part:
    """See the top of the file."""
    options = stage.options
    kind = "PostgreSQL" if options.postgres else "SQLite"
    part = Part(f"{options.images} tasks predicted and stored, {kind}", theirs=("the backend",))
    with _deployment(stage) as there:
        urls = _images(there.folder / "datasets", options.images, stage)
        environ = [
            *stage.environ,
            "LABEL_STUDIO_URL=http://label-studio:8080",
            f"LABEL_STUDIO_API_KEY={TOKEN}",
        ]
        place = stage.place(datasets=there.folder / "datasets")
        place = type(place)(
            place.image,
            [*place.arguments, "--network", there.network, "--network-alias", "backend"],
        )
        with backend(place, environ, urls) as (service, name):
            service.settle(options.expect, SETTLE)
            there.tool("apply", "/projects")
            part.ran = service.engine
            version = (service.get("/versions") or {})["versions"][0]
            grown: dict[str, float] = {}
            service.run(CLIENTS, TASKS, 2)
            for number in range(options.rounds):
                there.forget(version)
                own = service.run(CLIENTS, TASKS, max(options.seconds, 10))
                found = {"the backend": own, "ls-yolo prelabel": _run(there, service, name, grown)}
                part.rounds.append(found)
                print(f"{part.title}: round {number + 1}: {found}", file=sys.stderr)
    part.figures = {
        way: {
            unit: statistics.median(found[way][unit] for found in part.rounds)
            for unit in part.rounds[0][way]
        }
        for way in part.rounds[0]
    }
    found = ratio(part, "ls-yolo prelabel", "the backend")
    part.targets = {f"{found:.2f} of the backend's own rate, at least 0.85": found >= 0.85}
    part.targets |= {
        f"{what}: {more:+.0f} MB over the second half, at most +{FLAT:.0f}": more <= FLAT
        for what, more in grown.items()
    }
    return part


def _run(there: Deployment, service: Backend, name: str, grown: dict[str, float]) -> Figures:
    """Images a second of a whole run, the start of its process and the last count among it."""
    used, began = cpu_seconds(name), time.perf_counter()
    tool = there.tool("prelabel", TITLE, detach=True)
    there.containers.append(tool)
    done = threading.Event()
    seen: list[tuple[float, dict[str, float]]] = []

    def watch() -> None:
        while not done.wait(4):
            with contextlib.suppress(BenchError, ValueError):
                memory = {
                    "the backend": look(name)["megabytes"],
                    "Label Studio": look(there.studio)["megabytes"],
                    "prelabel": look(tool)["megabytes"],
                }
                seen.append((time.perf_counter() - began, memory))

    watching = threading.Thread(target=watch)
    watching.start()
    code = docker("wait", tool)
    passed = time.perf_counter() - began
    done.set()
    watching.join()
    log = docker("logs", tool)
    images = there.stage.options.images
    if code != "0" or not re.search(rf"{images} tasks, each with a stored prediction", log):
        raise BenchError(f"prelabel ended with {code}: {log[-500:]}")
    half = [memory for at, memory in seen if at >= passed / 2]
    if len(half) < 2:
        raise BenchError(
            f"prelabel took {passed:.0f} s, too short to see whether memory grows; more --images"
        )
    for what in half[0]:
        more = half[-1][what] - half[0][what]
        grown[what] = max(grown.get(what, more), more)
    return {
        "images_per_second": images / passed,
        "ms": passed / images * 1000,
        "cpu_ms_per_image": (cpu_seconds(name) - used) / images * 1000,
    }


def _images(datasets: Path, count: int, stage: Stage) -> list[str]:
    """So many unlike images of `SIDE` pixels, made of the demo's; returns their addresses."""
    target = datasets / "bulk"
    target.mkdir(parents=True)
    sources = []
    for path in sorted((stage.options.datasets / "demo").glob("*.jpg")):
        with Image.open(path) as image:
            image.thumbnail((SIDE + 64, SIDE + 64))
            sources.append(image.convert("RGB"))
    for number in range(count):
        image = sources[number % len(sources)]
        x, y = number % 32, number // 32 % 32
        right, bottom = min(image.width, x + SIDE), min(image.height, y + SIDE)
        image.crop((x, y, right, bottom)).save(target / f"{number:06}.jpg", quality=88)
    for path in (datasets, target, *target.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [f"/data/local-files/?d=bulk/{number:06}.jpg" for number in range(count)]


@contextlib.contextmanager
def _deployment(stage: Stage) -> Iterator[Deployment]:
    """Label Studio, ready; on PostgreSQL where that is asked for."""
    folder = stage.models.parent
    network = f"ls-yolo-bench-{secrets.token_hex(3)}"
    docker("network", "create", network)
    there = Deployment(stage, folder, network)
    try:
        (folder / "projects").mkdir(mode=0o755)
        (folder / "datasets").mkdir(mode=0o755)
        project = {
            "title": TITLE,
            "models": ["coco"],
            "predict": False,
            "storage": {"path": "bulk"},
            "label_config": (
                '<View><Image name="image" value="$image"/>'
                '<RectangleLabels name="l" toName="image">'
                '<Label value="person"/><Label value="bus"/></RectangleLabels></View>'
            ),
        }
        (folder / "projects" / "bulk.yaml").write_text(json.dumps(project))  # JSON is YAML
        environ = {
            "LABEL_STUDIO_USERNAME": "bench@example.com",
            "LABEL_STUDIO_PASSWORD": secrets.token_hex(12),
            "LABEL_STUDIO_API_KEY": TOKEN,
            "SSRF_ALLOWED_HOSTS": "backend",
            "LOCAL_FILES_DOCUMENT_ROOT": "/datasets",
        }
        if stage.options.postgres:
            environ |= _postgres(there)
        image = stage.options.image.replace("/backend:", "/label-studio:")
        there.studio = there.start(
            image, "label-studio", environ, "-v", f"{folder}/datasets:/datasets:ro"
        )
        health = "{{.State.Running}}"
        ask = ["python3", "-m", "ls_kit.healthcheck"]
        until = time.monotonic() + STARTS
        while True:
            with contextlib.suppress(BenchError):
                docker("exec", there.studio, *ask)
                break
            if time.monotonic() > until or docker("inspect", "-f", health, there.studio) != "true":
                raise BenchError(
                    f"Label Studio is not ready: {docker('logs', there.studio)[-500:]}"
                )
            time.sleep(1)
        yield there
    finally:
        for name in there.containers:
            docker("rm", "-f", "-v", name, check=False)
        docker("network", "rm", network, check=False)


def _postgres(there: Deployment) -> dict[str, str]:
    """Starts PostgreSQL; returns what tells Label Studio of it."""
    secret = secrets.token_hex(12)
    names = {"POSTGRES_USER": "label-studio", "POSTGRES_DB": "label-studio"}
    database = there.start(
        "ls-yolo/postgres:17", "postgres", {**names, "POSTGRES_PASSWORD": secret}
    )
    for _ in range(120):
        with contextlib.suppress(BenchError):
            docker("exec", database, "pg_isready", "--quiet", "--host=127.0.0.1")
            break
        time.sleep(1)
    return {
        "DJANGO_DB": "postgresql",
        "POSTGRE_HOST": "postgres",
        "POSTGRE_PORT": "5432",
        "POSTGRE_NAME": "label-studio",
        "POSTGRE_USER": "label-studio",
        "POSTGRE_PASSWORD": secret,
    }
