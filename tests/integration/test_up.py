"""`make up` itself, as a person runs it: again, cut off, and changed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from conftest import MODELS
from installation import Installation, installation

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with installation() as place:
        code, output = place.up()
        assert code == 0, output
        yield place


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
