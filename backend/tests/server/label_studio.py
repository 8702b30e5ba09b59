"""What Label Studio 1.23 sends, and what it keeps: for the tests of the protocol."""

from __future__ import annotations

import base64

from ls_yolo.labelstudio.client import StudioError

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" model_score_threshold="0.2" model_path="">
    <Label value="person" background="red"/>
    <Label value="head" background="yellow"/>
  </RectangleLabels>
</View>"""
ROUTES = [
    ("GET", "/health"),
    ("GET", "/"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/versions"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
]
OPEN = {"/health", "/", "/livez", "/readyz"}
ANNOTATION = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "project": {"id": 1}}
TRAINING = {"action": "START_TRAINING", "project": {"id": 1}}


class LabelStudio:
    """What the backend asks Label Studio for: ML connections by project."""

    def __init__(self):
        self.rows = {}
        self.down = False

    def connections(self, project):
        if self.down:
            raise StudioError("connections of project 3: ConnectError")
        return self.rows.get(project, [])


def setup(client, path="/setup", **more):
    body = {
        "project": "3.1700000000",
        "schema": CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": "hunter2",
        "extra_params": None,
    }
    return client.post(path, json=body | more)


def labels(answer):
    assert answer.status_code == 200, answer.text
    return [
        [region["value"]["rectanglelabels"][0] for region in result["result"]]
        for result in answer.json["results"]
    ]


def basic(user, password):
    both = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {both}"}
