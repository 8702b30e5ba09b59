"""An installation as `make up` makes it, in a place of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests
import yaml

from conftest import MODELS, ROOT, fetch_demo, free_port, label_config


def build_settings() -> dict[str, str]:
    """Those that the images were built with, so that they are not built anew with others."""
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.is_file() else []
    pairs = (line.partition("=") for line in lines)
    names = ("CA_BUNDLE", "PIP_INDEX_URL", "APT_MIRROR", "TORCH_INDEX")
    return {name: value.strip("'") for name, _, value in pairs if name in names}


class Installation:
    """A place of its own for scripts/up.py: settings, folders, ports, project name."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.root = ROOT
        self.name = f"ls-yolo-test-{secrets.token_hex(3)}"
        self.ports = free_port(), free_port()
        self.environment = {
            **os.environ,
            "LS_YOLO_ENV_FILE": str(folder / ".env"),
            "COMPOSE_PROJECT_NAME": self.name,
            "LABEL_STUDIO_PORT": str(self.ports[0]),
            "BACKEND_PORT": str(self.ports[1]),
            "DATASETS_DIR": str(folder / "datasets"),
            "MODELS_DIR": str(folder / "models"),
            "PROJECTS_DIR": str(folder / "projects"),
            **build_settings(),
            **settings,
        }

    def start(self, *words: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "scripts/up.py", *words], cwd=self.root, text=True,
            env={**self.environment, **settings}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def up(self, *words: str, **settings: str) -> tuple[int, str]:
        """Exit code and output of ``make up``."""
        process = self.start(*words, **settings)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def compose(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "scripts/compose.py", *words], cwd=self.root, env=self.environment,
            text=True, capture_output=True, check=False,
        ).stdout  # fmt: skip

    def containers(self) -> dict[str, str]:
        """The ids of the running services."""
        found = docker.from_env().containers.list(
            filters={"label": f"com.docker.compose.project={self.name}"}
        )
        return {c.labels["com.docker.compose.service"]: str(c.id) for c in found}

    @property
    def token(self) -> str:
        """The first user's, as .env has it."""
        lines = (self.folder / ".env").read_text().splitlines()
        key = next(line for line in lines if line.startswith("LABEL_STUDIO_API_KEY="))
        return key.partition("=")[2]

    def get(self, path: str) -> Any:
        answer = requests.get(
            f"http://127.0.0.1:{self.ports[0]}{path}", timeout=30,
            headers={"Authorization": f"Token {self.token}"},
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json()

    def predictions(self) -> list[tuple[int, int]]:
        """(task, id) of every stored prediction."""
        return sorted((p["task"], p["id"]) for p in self.get("/api/predictions/"))


@contextlib.contextmanager
def installation(**settings: str) -> Iterator[Installation]:
    """One with the demo's images and a project of them, not up yet; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ls-yolo-test-"))
    folder.chmod(0o755)
    for name in ("datasets", "projects"):
        (folder / name).mkdir(mode=0o755)
    fetch_demo(folder)
    (folder / "models" / "models.yaml").write_text(yaml.safe_dump({"coco": MODELS["coco"]}))
    project = {"title": "demo", "label_config": label_config("person", "bus"), "models": ["coco"],
               "storage": {"path": "demo"}}  # fmt: skip
    (folder / "projects" / "mine.yaml").write_text(yaml.safe_dump(project))
    place = Installation(folder, **settings)
    try:
        yield place
    finally:
        place.compose("down", "--volumes")
        shutil.rmtree(folder, ignore_errors=True)
