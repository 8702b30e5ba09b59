"""Every task, in the backend's image: both engines and ultralytics say the same, and all
architectures load. What happens inside is in tasks_inside.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from conftest import answer_inside
from shapes import shapes

pytestmark = pytest.mark.docker
TASKS = ["segment", "obb", "pose", "classify"]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What tasks_inside.py found."""
    return answer_inside(
        tmp_path_factory.mktemp("tasks"),
        "tasks_inside.py",
        {str(shapes()): "/shapes"},
        tmp="size=2g",
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("pair", "pixels", "score", "iou"),
    [
        ("torch, ultralytics", 1, 0.01, 0.97),
        ("ultralytics, torch", 1, 0.01, 0.97),
        ("openvino, torch", 1, 0.01, 0.97),
        ("torch, openvino", 1, 0.01, 0.97),
        ("auto, torch", 2, 0.03, 0.95),
        ("torch, together", 1, 0.01, 0.97),
        ("openvino, together", 1, 0.01, 0.97),
    ],
)
def test_engines_ultralytics_and_batches_say_the_same(
    inside: Any, task: str, pair: str, pixels: float, score: float, iou: float
) -> None:
    found = inside[task][pair]
    assert sum(one["count"] for one in found) >= 3
    for one in found:
        assert one["missing"] == 0, one
        assert one["pixels"] <= pixels, one
        assert one["score"] <= score, one
        assert one["iou"] >= iou, one


@pytest.mark.parametrize("task", ["obb", "pose", "classify"])
def test_the_drawn_shapes_are_seen_where_they_are(inside: Any, task: str) -> None:
    truth = json.loads((shapes() / "truth.json").read_text())[task]
    found = inside[task]["seen"]
    assert sorted(kind for kind, _ in found) == sorted(kind for kind, _ in truth)
    for kind, corners in truth if task != "classify" else []:
        centre = np.mean(corners, axis=0)
        near = [
            np.hypot(*(np.mean(places, 0) - centre)) for other, places in found if other == kind
        ]
        assert min(near) < 20, (kind, corners, found)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_areas_of_classes_are_those_of_ultralytics(inside: Any, engine: str) -> None:
    assert inside["semantic"][engine]["classes"] >= 2
    assert inside["semantic"][engine]["iou"] >= 0.97


def test_every_architecture_of_ultralytics_loads_and_answers(inside: Any) -> None:
    found = dict(inside["architectures"])
    depth = found.pop("depth")
    assert len(found) == 20
    assert {one["type"] for one in found.values()} == {
        "Boxes", "Masks", "OrientedBoxes", "Keypoints", "Classes",
    }  # fmt: skip
    exported = [one["off"] for one in found.values() if "off" in one]
    assert len(exported) == 4
    assert max(exported) <= 0.01
    assert "found a model for 'depth', expected one for detect, segment" in depth
