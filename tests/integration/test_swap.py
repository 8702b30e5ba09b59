"""Weights that are replaced while Label Studio asks for predictions, as its page does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from conftest import MODELS, Stack, label_config

pytestmark = pytest.mark.docker

CLIENTS, MOST = 3, 1200
"""Those that ask at a time, and the tasks that there are to be asked for."""
CONFIG = label_config("person", "human")


def write_models(stack: Stack, models: dict[str, Any]) -> None:
    (stack.folder / "models" / "models.yaml").write_text(yaml.safe_dump(models, sort_keys=False))
    requests.post(f"{stack.backend_url}/reload", auth=stack.auth, timeout=90).raise_for_status()


def version(stack: Stack) -> str:
    answer = stack.post("/m/swapped/setup", {"project": "", "schema": CONFIG})
    return str(answer.json()["model_version"])


@pytest.fixture
def weights(stack: Stack) -> Iterator[Path]:
    """A file of the models folder, which the model "swapped" is; beside it, `human.pt`, which
    calls a person so."""
    folder = stack.folder / "models"
    script = (
        "ls-yolo weights rename /models/yolov8n.pt 0=human -o /tmp/human.pt >&2"
        " && cat /tmp/human.pt && rm /tmp/human.pt"
    )
    code, (data, said) = stack.container("backend").exec_run(["sh", "-c", script], demux=True)
    assert code == 0, said
    (folder / "human.pt").write_bytes(data)
    shutil.copy(folder / "yolov8n.pt", folder / "swapped.pt")
    write_models(stack, {**MODELS, "swapped": {"weights": "swapped.pt", "conf": 0.25}})
    try:
        yield folder / "swapped.pt"
    finally:
        write_models(stack, MODELS)
        for name in ("swapped.pt", "human.pt"):
            (folder / name).unlink(missing_ok=True)


def test_weights_swapped_under_load_fail_nothing_and_every_box_is_of_its_version(
    stack: Stack, weights: Path
) -> None:
    """The two files call a person by other names, so a stored box tells which drew it."""
    made = stack.api.projects.create(title="swapped", label_config=CONFIG)
    stack.api.ml.create(
        project=made.id, url="http://backend:9090/m/swapped", title="swapped",
        auth_method="BASIC_AUTH", basic_auth_user=stack.auth[0], basic_auth_pass=stack.auth[1],
    )  # fmt: skip
    images = [f"/data/local-files/?d=demo/{name}.jpg" for name in ("bus", "zidane")]
    tasks = [{"image": images[i % 2]} for i in range(MOST)]
    imported = stack.api.projects.import_tasks(id=made.id, request=tasks, return_task_ids=True)
    pairs = iter(zip(imported.task_ids[::2], imported.task_ids[1::2], strict=True))
    old = version(stack)
    log = len(stack.log("backend"))
    asked: list[int] = []
    swapped: list[str] = []

    def client() -> None:
        """Asks for predictions of two tasks at a time, as a person who selects them does."""
        afterwards = 0
        while afterwards < 3:
            afterwards += bool(swapped)
            pair = next(pairs)
            stack.api.actions.create(
                id="retrieve_tasks_predictions",
                project=made.id,
                selected_items={"all": False, "included": pair},
            )
            asked.extend(pair)

    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [pool.submit(client) for _ in range(CLIENTS)]
        until = time.monotonic() + 60
        while len(asked) < 4 * CLIENTS and time.monotonic() < until:
            time.sleep(0.05)
        (weights.parent / "human.pt").replace(weights)
        while (now := version(stack)) == old and time.monotonic() < until:
            time.sleep(0.2)
        swapped.append(now)
        for job in jobs:
            job.result()
    (new,) = swapped
    assert new != old
    names = {old: {"person"}, new: {"human"}}
    stored = stack.api.predictions.list(project=made.id)
    assert sorted(prediction.task for prediction in stored) == sorted(asked)
    assert {prediction.model_version for prediction in stored} == {old, new}
    for prediction in stored:
        drawn = {region["value"]["rectanglelabels"][0] for region in prediction.result}
        assert drawn == names[prediction.model_version]
    said = stack.log("backend")[log:]
    assert "in place of" in said
    assert '"level": "ERROR"' not in said
    assert '"status": 5' not in said
