"""A model.py in the manner of setups made by hand, in the product's own image, unchanged.

Two names for one file of weights stand for several models; nothing else is made up: torch,
ultralytics, the images and the class's own loop over boxes are real.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import IMAGES, SEED_CONFIG, Stack, ask_inside

pytestmark = pytest.mark.docker

MODEL_PY = """
import logging
import os
from typing import Dict, List, Optional

import cv2
import torch
from joblib import Memory
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path
from ultralytics import YOLO

logger = logging.getLogger(__name__)
memory = Memory("./cache_dir", verbose=0)
HERE = os.path.dirname(os.path.realpath(__file__))

# As upstream's example reads it, at import.
THRESHOLD = float(os.getenv("MODEL_SCORE_THRESHOLD", 0.4))
WEIGHTS = {
    "wheelhouse-person": "weights/yolov8n.pt",
    "wheelhouse-head": "weights/yolov8n.pt",
}


@memory.cache
def size_of(path):
    print(f"measured {path}")
    return cv2.imread(path).shape[:2]


class NewModel(LabelStudioMLBase):
    def __init__(self, project_id=None, label_config=None):
        super().__init__(project_id, label_config)
        self.models = {}
        self.device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        for name, path in WEIGHTS.items():
            self.models[name] = YOLO(path).eval().to(self.device)
            print(f"loaded {path}")

    def setup(self):
        self.set("model_version", "0.0.1")

    def predict(self, tasks: List[Dict], context: Optional[Dict] = None, **kwargs) -> ModelResponse:
        names = self.extra_params.values()
        result, scores = [], []
        for name, model in self.models.items():
            if name not in names:
                continue
            for task in tasks:
                path = get_local_path(task["data"]["image"], task_id=task.get("id"))
                found = model.predict(path, conf=THRESHOLD, iou=0.4)[0]
                assert size_of(path) == found.orig_shape
                cv2.imwrite(os.path.join(HERE, "debug.jpg"), found.plot())
                with open(os.path.join(os.environ["MODEL_ROOT"], "downloaded.pt"), "w") as file:
                    file.write("weights")
                for box in found.boxes:
                    label = found.names[box.cls.cpu().numpy().tolist()[0]]
                    score = box.conf.cpu().numpy().tolist()[0]
                    xc, yc, w, h = box.xywh.cpu().numpy().tolist()[0]
                    height, width = box.orig_shape
                    scores.append(score)
                    result.append({
                        "from_name": "label",
                        "to_name": "image",
                        "type": "rectanglelabels",
                        "score": score,
                        "value": {
                            "rectanglelabels": [label],
                            "x": (xc - w / 2) / width * 100,
                            "y": (yc - h / 2) / height * 100,
                            "width": w / width * 100,
                            "height": h / height * 100,
                            "rotation": 0,
                        },
                    })
        predictions = [{
            "result": result,
            "score": sum(scores) / max(len(scores), 1),
            "model_version": self.get("model_version"),
        }]
        return ModelResponse(predictions=predictions)

    def fit(self, event, data, **kwargs):
        self.set("my_data", "my_new_data_value")
        self.set("model_version", "my_new_model_version")
"""


@pytest.fixture(scope="module")
def backend(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The product's image with this model.py, read-only, as compose has it, and no network."""
    folder = tmp_path_factory.mktemp("own")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)
    (folder / "model.py").write_text(MODEL_PY)
    (folder / "weights").mkdir()
    (folder / "weights" / "yolov8n.pt").write_bytes(
        (stack.folder / "models" / "yolov8n.pt").read_bytes()
    )
    container = stack.docker.containers.run(
        IMAGES["backend"],
        name=f"ls-yolo-test-own-{secrets.token_hex(3)}",
        detach=True,
        network_mode="none",
        read_only=True,
        tmpfs={"/tmp": "mode=1777", "/data/models": "mode=0755,uid=1001"},
        # Compose sets to nothing what .env does not set.
        environment={"MODEL_CLASS": "model:NewModel", "MODEL_SCORE_THRESHOLD": ""},
        volumes={
            str(folder): {"bind": "/models", "mode": "ro"},
            str(stack.datasets): {"bind": "/datasets", "mode": "ro"},
        },
    )
    try:
        yield container
    finally:
        container.remove(force=True)


def tasks(stack: Stack) -> list[dict[str, Any]]:
    names = sorted(path.name for path in (stack.datasets / "demo").iterdir())
    return [
        {"id": number, "data": {"image": f"/data/local-files/?d=demo/{name}"}}
        for number, name in enumerate(names)
    ]


def ask(container: Any, stack: Stack, path: str = "") -> list[Any]:
    body = {"tasks": tasks(stack), "project": "3.1", "label_config": SEED_CONFIG}
    results: list[Any] = ask_inside(container, f"{path}/predict", body)["results"]
    return results


def set_up(container: Any, project: str, extra: Any, path: str = "") -> Any:
    body = {"project": project, "schema": SEED_CONFIG, "extra_params": extra}
    return ask_inside(container, f"{path}/setup", body)["model_version"]


def test_the_boxes_are_those_that_ultralytics_itself_gives(
    backend: Any, stack: Stack, direct: Any
) -> None:
    assert set_up(backend, "3.1", {"0": "wheelhouse-person"}) == "0.0.1"
    answers = ask(backend, stack)
    truth = direct(stack.datasets / "demo", conf=0.4, iou=0.4)
    assert len(answers) == len(truth) > 1
    for answer, task in zip(answers, tasks(stack), strict=True):
        assert answer["model_version"] == "0.0.1"
        wanted = truth[Path(task["data"]["image"]).name]
        found = [
            [region["value"]["rectanglelabels"][0], region["score"]] for region in answer["result"]
        ]
        assert [label for label, _ in found] == [label for label, *_ in wanted]
        assert [score for _, score in found] == pytest.approx([score for _, score, _ in wanted])


def test_several_names_add_their_boxes_by_extra_params_or_by_url(
    backend: Any, stack: Stack
) -> None:
    set_up(backend, "3.1", {"0": "wheelhouse-person"})
    one = [len(answer["result"]) for answer in ask(backend, stack)]
    set_up(backend, "3.1", '{"0": "wheelhouse-person", "1": "wheelhouse-head"}')
    two = [len(answer["result"]) for answer in ask(backend, stack)]
    by_url = ask(backend, stack, "/m/wheelhouse-person+wheelhouse-head")
    assert sum(one) > 0
    assert two == [2 * count for count in one] == [len(answer["result"]) for answer in by_url]


def test_the_weights_are_loaded_once_and_training_gives_its_project_another_version(
    backend: Any,
) -> None:
    body = {"action": "START_TRAINING", "project": {"id": 4, "label_config": SEED_CONFIG}}
    ask_inside(backend, "/webhook", body)
    for _ in range(100):
        if set_up(backend, "4.1", None) == "my_new_model_version":
            break
        time.sleep(0.1)
    assert set_up(backend, "4.1", None) == "my_new_model_version"
    assert set_up(backend, "5.1", None) == "0.0.1"
    assert backend.logs().decode().count("loaded weights/yolov8n.pt") == 2


def test_a_class_may_write_beside_itself_and_what_it_cached_is_used_again(
    backend: Any, stack: Stack
) -> None:
    """A cache, a debug picture, a download: into a read-only folder of models, as it were."""
    set_up(backend, "3.1", {"0": "wheelhouse-person"})
    for _ in range(2):
        ask(backend, stack)
    measured = [line for line in backend.logs().decode().splitlines() if "measured" in line]
    assert len(measured) == len(set(measured)) == len(tasks(stack))
    kept = set(backend.exec_run(["ls", "/data/models/model-py"]).output.decode().split())
    assert {"cache_dir", "debug.jpg", "downloaded.pt", "model.py", "weights"} <= kept
    mounted = backend.exec_run(["ls", "/models"]).output.decode().split()
    assert set(mounted) == {"model.py", "weights"}
