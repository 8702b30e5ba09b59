"""`make up` itself, as a person runs it: again, cut off, and changed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests
import yaml

from conftest import MODELS, ROOT, fetch_demo, free_port, label_config

pytestmark = pytest.mark.docker


def build_settings() -> dict[str, str]:
    """Those that the images were built with, so that they are not built anew with others."""
    file = ROOT / ".env"
    lines = file.read_text().splitlines() if file.is_file() else []
    pairs = (line.partition("=") for line in lines)
    names = ("CA_BUNDLE", "PIP_INDEX_URL", "APT_MIRROR", "TORCH_INDEX")
    return {name: value.strip("'") for name, _, value in pairs if name in names}


class Installation:
    """A place of its own for scripts/up.py: settings, folders, ports, project name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "scripts/up.py", *words], cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def up(self, *words: str) -> tuple[int, str]:
        """Exit code and output of ``make up``."""
        process = self.start(*words)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def compose(self, *words: str) -> str:
        return subprocess.run(
            [sys.executable, "scripts/compose.py", *words], cwd=ROOT, env=self.environment,
            text=True, capture_output=True, check=False,
        ).stdout  # fmt: skip

    def containers(self) -> dict[str, str]:
        """The ids of the running services."""
        found = docker.from_env().containers.list(
            filters={"label": f"com.docker.compose.project={self.name}"}
        )
        return {c.labels["com.docker.compose.service"]: str(c.id) for c in found}

    def get(self, path: str) -> Any:
        lines = (self.folder / ".env").read_text().splitlines()
        key = next(line for line in lines if line.startswith("LABEL_STUDIO_API_KEY="))
        answer = requests.get(
            f"http://127.0.0.1:{self.ports[0]}{path}", timeout=30,
            headers={"Authorization": f"Token {key.partition('=')[2]}"},
        )  # fmt: skip
        answer.raise_for_status()
        return answer.json()

    def predictions(self) -> list[tuple[int, int]]:
        """(task, id) of every stored prediction."""
        return sorted((p["task"], p["id"]) for p in self.get("/api/predictions/"))


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="ls-yolo-test-"))
    folder.chmod(0o755)
    for name in ("datasets", "projects"):
        (folder / name).mkdir(mode=0o755)
    fetch_demo(folder)
    (folder / "models" / "models.yaml").write_text(yaml.safe_dump({"coco": MODELS["coco"]}))
    project = {"title": "demo", "label_config": label_config("person", "bus"), "models": ["coco"],
               "storage": {"path": "demo"}}  # fmt: skip
    (folder / "projects" / "mine.yaml").write_text(yaml.safe_dump(project))
    place = Installation(folder)
    try:
        code, output = place.up()
        assert code == 0, output
        yield place
    finally:
        place.compose("down", "--volumes", "--remove-orphans")
        shutil.rmtree(folder, ignore_errors=True)


def test_it_ends_with_a_prediction_of_each_task_and_tells_where_to_go(place: Installation) -> None:
    assert len(place.predictions()) == 5
    _, output = place.up()
    assert f"http://127.0.0.1:{place.ports[0]}" in output
    assert "LABEL_STUDIO_PASSWORD in .env" in output
    lines = (place.folder / ".env").read_text().splitlines()
    for secret in ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS"):
        value = next(line for line in lines if line.startswith(f"{secret}=")).partition("=")[2]
        assert value and value not in output


def test_a_second_one_changes_nothing(place: Installation) -> None:
    def state() -> list[Any]:
        file = place.folder / ".env"
        return [place.containers(), place.predictions(), file.read_bytes(), file.stat().st_mode]

    before = state()
    code, output = place.up()
    assert code == 0, output
    assert state() == before


def test_new_images_and_a_new_threshold_are_predicted_by_the_next_one(place: Installation) -> None:
    before = place.containers()
    shutil.copy(place.folder / "datasets/demo/bus.jpg", place.folder / "datasets/demo/second.jpg")
    entry = {**MODELS["coco"], "conf": 0.6}
    (place.folder / "models" / "models.yaml").write_text(yaml.safe_dump({"coco": entry}))
    code, output = place.up()
    assert code == 0, output
    assert "6 tasks, each with a stored prediction" in output
    versions = [p["model_version"] for p in place.get("/api/predictions/")]
    assert sorted(versions.count(version) for version in set(versions)) == [5, 6]
    assert place.containers()["label-studio"] == before["label-studio"]


def test_a_fault_in_models_yaml_is_told_and_the_running_backend_goes_on(
    place: Installation,
) -> None:
    file, before = place.folder / "models" / "models.yaml", place.containers()
    good = file.read_text()
    file.write_text("coco:\n  weigths: yolov8n.pt\n")
    try:
        code, output = place.up()
    finally:
        file.write_text(good)
    assert code == 1
    assert "models.yaml:2: coco.weigths: is not known; did you mean 'weights'?" in output
    assert place.containers() == before
    code, output = place.up()
    assert code == 0, output


def test_one_that_was_killed_in_its_last_step_leaves_nothing_behind(place: Installation) -> None:
    """Its setup would otherwise go on beside that of the next, and store everything twice."""
    for number in range(40):
        source = place.folder / "datasets/demo/zidane.jpg"
        shutil.copy(source, place.folder / f"datasets/demo/copy-{number}.jpg")
    process = place.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "16 of " in line or " tasks have predictions" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    code, output = place.up()
    assert code == 0, output
    time.sleep(5)
    newest = place.get("/api/ml?project=1")[0]["model_version"]
    tasks = [p["task"] for p in place.get("/api/predictions/") if p["model_version"] == newest]
    assert len(tasks) == len(set(tasks)) == 46
    assert set(place.containers()) == {"label-studio", "backend"}
