"""What the tests of a user's class share: model.py files as people write them, requests to them."""

from __future__ import annotations

import base64
import itertools

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
AUTH = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}

HEAD = """
from typing import Dict, List, Optional
from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import get_local_path
"""

# As people write it who followed the template: several models by name, extra_params choose, and one
# answer for all tasks.
MANY_MODELS = (
    HEAD
    + """
MODELS = {"wheelhouse-person": ["person"], "wheelhouse-head": ["head", "head"]}

class NewModel(LabelStudioMLBase):
    made = 0

    def __init__(self, project_id=None, label_config=None):
        super().__init__(project_id, label_config)
        NewModel.made += 1
        self.models = dict(MODELS)

    def setup(self):
        self.set("model_version", "0.0.1")

    def predict(self, tasks: List[Dict], context: Optional[Dict] = None, **kwargs) -> ModelResponse:
        result, scores = [], []
        for name, found in self.models.items():
            if name not in self.extra_params.values():
                continue
            for task in tasks:
                with open(get_local_path(task["data"]["image"], task_id=task.get("id"))) as file:
                    x = float(file.read())
                for label in found:
                    scores.append(0.5)
                    result.append({
                        "from_name": "label", "to_name": "image", "type": "rectanglelabels",
                        "value": {"rectanglelabels": [label], "x": x, "y": 0, "width": 1,
                                  "height": 1, "rotation": 0},
                    })
        return ModelResponse(predictions=[{
            "result": result, "score": sum(scores) / max(len(scores), 1),
            "model_version": self.get("model_version"),
        }])

    def fit(self, event, data, **kwargs):
        self.set("my_data", event)
        self.set("model_version", "fitted")
"""
)

numbers = itertools.count()


def predictor(body: str, head: str = "") -> str:
    """A model.py whose ``predict`` has this body."""
    lines = "\n        ".join(body.splitlines())
    return (
        HEAD
        + head
        + f"""
class NewModel(LabelStudioMLBase):
    def predict(self, tasks, context=None, **kwargs):
        {lines}
"""
    )


def ask(client, tasks, project="7.1", path="", **more):
    body = {"tasks": tasks, "project": project, "label_config": CONFIG, **more}
    answer = client.post(f"{path}/predict", json=body)
    return (
        answer.json["results"] if answer.status_code == 200 else (answer.status_code, answer.json)
    )


def set_up(client, project="7.1", extra_params=None, path=""):
    body = {"project": project, "schema": CONFIG, "extra_params": extra_params}
    return client.post(f"{path}/setup", json=body).json["model_version"]


def xs(prediction):
    return [region["value"]["x"] for region in prediction["result"]]
