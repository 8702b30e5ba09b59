"""The examples of projects: each is read, and drawn for as it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backend.tests.controls.drawing import (
    bodies,
    boxes,
    classes,
    draw,
    faults,
    footage,
    masks,
    oriented,
    tracks,
)
from ls_yolo import controls
from ls_yolo.projects import config, labels

FOLDER = Path(__file__).parents[3] / "examples"
SHIP = "ship.yaml"
PROJECTS = config.read(*(path for path in FOLDER.iterdir() if path.name != "models.yaml"))
EXAMPLES = {Path(one.source).name: one for one in PROJECTS if Path(one.source).name != SHIP}
BOX = 10, 10, 60, 60, 0.9, 0
POINTS = [[(20 + 2 * number, 30) for number in range(17)]]
DEMO = {
    "demo.yaml": ({0: "person"}, boxes(BOX), ["rectanglelabels"]),
    "demo-outlines.yaml": ({0: "cat"}, masks(np.ones((30, 30))), ["polygonlabels"]),
}
SAYS = {
    "detect.yaml": ({0: "person"}, boxes(BOX), ["rectanglelabels"]),
    "obb.yaml": ({0: "ship"}, oriented((50, 50, 30, 20, 0.5, 0.9, 0)), ["rectanglelabels"]),
    "segment.yaml": ({0: "cat"}, masks(np.ones((30, 30))), ["polygonlabels"]),
    "smart.yaml": ({0: "cat"}, masks(np.ones((30, 30))), ["polygonlabels"]),
    "brush.yaml": ({0: "cat"}, masks(np.ones((30, 30))), ["brushlabels"]),
    "pose.yaml": (
        {0: "person"},
        bodies([BOX], POINTS),
        ["rectanglelabels", *["keypointlabels"] * 17],
    ),
    "video.yaml": (
        {0: "person"},
        tracks(footage([1, 2]), *[(at, 1, *BOX) for at in (0, 1)]),
        ["videorectangle"],
    ),
    "classify.yaml": ({0: "limousine"}, classes(0.9), ["choices"]),
}


def test_the_ship_has_two_domains_with_two_models_each():
    ship = [one for one in PROJECTS if Path(one.source).name == SHIP]
    assert [one.models for one in ship] == [
        ("wheelhouse-person", "wheelhouse-head"),
        ("outdoordeck-person", "outdoordeck-helmet"),
    ]
    text = (FOLDER / SHIP).read_text()
    for one in ship:
        assert all(f"#   {model}:\n#     weights: yolov11-detect-" in text for model in one.models)
        names = [model.rpartition("-")[2] for model in one.models]
        known = [{"name": model, "task": "detect", "classes": [name]}
                 for model, name in zip(one.models, names, strict=True)]  # fmt: skip
        (control,) = controls.drawn(labels.label_config(one.labels, one.models, known))
        assert [label.value for label in control.labels] == names


def test_there_is_an_example_of_each_kind():
    assert set(EXAMPLES) == {*SAYS, *DEMO}


@pytest.mark.parametrize("name", [*SAYS, *DEMO])
def test_an_example_is_drawn_for_as_label_studio_takes_it(name):
    names, result, types = {**SAYS, **DEMO}[name]
    text = EXAMPLES[name].label_config
    found = draw(text, result, 100, 100, names=names)
    assert [region["type"] for region in found] == types
    assert faults(text, found) == []
    for control in controls.drawn(text):
        assert controls.match(control, names.values()).labels


@pytest.mark.parametrize("name", SAYS)
def test_an_example_says_which_model_it_needs(name):
    text = (FOLDER / name).read_text()
    (model,) = EXAMPLES[name].models
    assert f"#   {model}:\n#     weights: yolov8n" in text
