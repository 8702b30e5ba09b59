"""Regions, exported by Label Studio's own converter, are the shapes that the model said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from label_studio_sdk.converter import Converter

from backend.tests.controls.drawing import boxes, config, draw, masks, oriented, tag

WIDTH, HEIGHT = 641, 479


@pytest.fixture
def export(tmp_path):
    def export(text, regions, format):
        """The files that the converter makes of a task with ``regions``, by name."""
        task = {"id": 1, "data": {"image": "/a.jpg"}, "annotations": [{"id": 1, "result": regions}]}
        (tmp_path / "tasks.json").write_text(json.dumps([task]))
        converter = Converter(text, str(tmp_path), download_resources=False)
        out = tmp_path / "out"
        converter.convert(str(tmp_path / "tasks.json"), str(out), format, is_dir=False)
        return {file.name: file.read_text() for file in out.rglob("*") if file.is_file()}

    return export


def rows(files):
    """Those of the YOLO label file: class, then numbers."""
    (text,) = (files[name] for name in files if name.endswith(".txt") and name != "classes.txt")
    return np.array([line.split() for line in text.splitlines()], np.float64)


def test_boxes_are_the_same_in_yolo_s_form(export):
    text = config(tag("RectangleLabels"))
    found = draw(text, boxes((10, 20, 110, 220, 0.9, 0), (0, 0, 641, 479, 0.5, 1)), WIDTH, HEIGHT)
    classes, x, y, w, h = rows(export(text, found, "YOLO")).T
    # The converter numbers labels by the alphabet: car, person.
    assert classes.tolist() == [1, 0]
    edges = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    edges *= (WIDTH, HEIGHT, WIDTH, HEIGHT)
    assert edges == pytest.approx(np.array([[10, 20, 110, 220], [0, 0, 641, 479]]), abs=0.01)


def test_turned_boxes_are_the_same_in_yolo_s_form(export):
    text = config(tag("RectangleLabels", 'model_obb="true"'))
    box = 300, 200, 120, 40, 0.6
    found = draw(text, oriented((*box, 0.9, 0)), WIDTH, HEIGHT)
    corners = rows(export(text, found, "YOLO_OBB"))[0, 1:].reshape(4, 2) * (WIDTH, HEIGHT)
    x, y, w, h, angle = box
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    expected = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2 @ turn + (x, y)
    assert np.sort(corners, axis=0) == pytest.approx(np.sort(expected, axis=0), abs=0.1)


def test_outlines_are_the_same_in_coco_s_form(export):
    text = config(tag("PolygonLabels"))
    found = draw(text, masks(np.ones((50, 80)), left=100, top=30), WIDTH, HEIGHT)
    (annotation,) = json.loads(export(text, found, "COCO")["result.json"])["annotations"]
    assert annotation["area"] == pytest.approx(50 * 80, abs=1)
    assert annotation["bbox"] == pytest.approx([100, 30, 80, 50], abs=0.1)
