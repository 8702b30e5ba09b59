"""Rectangles: boxes in pixels to regions in per cent, always such as Label Studio takes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from ls_yolo.controls import CONTROLS
from ls_yolo.controls.base import Target
from ls_yolo.labelstudio import label_config
from ls_yolo.results import Boxes

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
(CONTROL,) = label_config.parse(CONFIG)
SIZES = st.integers(1, 20_000)
ANY = st.floats(width=32)  # NaN and both infinities among them


def boxes(*rows):
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


def draw(found, width, height, names=None):
    labels = names or {0: "person"}
    return CONTROLS["rectanglelabels"].encode(Target(CONTROL, labels, labels, width, height), found)


def test_a_box_becomes_a_region_with_names_sizes_score_and_label():
    assert draw(boxes([20, 10, 120, 60, 0.75, 0]), 200, 100) == [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "rectanglelabels",
            "original_width": 200,
            "original_height": 100,
            "image_rotation": 0,
            "score": 0.75,
            "value": {
                "x": 10.0,
                "y": 10.0,
                "width": 50.0,
                "height": 50.0,
                "rotation": 0,
                "rectanglelabels": ["person"],
            },
        }
    ]


def test_no_box_makes_no_region():
    assert draw(boxes(), 200, 100) == []


def test_a_class_without_a_label_is_left_out():
    found = draw(boxes([0, 0, 9, 9, 0.9, 1], [0, 0, 9, 9, 0.8, 0]), 10, 10)
    assert [region["score"] for region in found] == [pytest.approx(0.8)]


@pytest.mark.parametrize(
    "edges",
    [
        (-50, -50, -1, -1),  # outside
        (200, 0, 300, 100),
        (10, 10, 10, 50),  # no width
        (10, 50, 90, 50),  # no height
        (float("nan"), 0, 10, 10),
        (0, 0, 10, float("nan")),
    ],
)
def test_a_box_with_no_area_inside_the_image_is_left_out(edges):
    assert draw(boxes([*edges, 0.9, 0]), 200, 100) == []


def test_a_score_that_is_no_number_is_left_out():
    assert draw(boxes([0, 0, 10, 10, float("nan"), 0]), 200, 100) == []


def test_a_box_that_reaches_out_is_cut_at_the_edge():
    inf = float("inf")
    (region,) = draw(boxes([-inf, -20, inf, 50, 0.9, 0]), 200, 100)
    assert region["value"] | {"rectanglelabels": 0} == {
        "x": 0,
        "y": 0,
        "width": 100,
        "height": 50,
        "rotation": 0,
        "rectanglelabels": 0,
    }


@given(st.lists(st.tuples(ANY, ANY, ANY, ANY, ANY, st.integers(0, 2))), SIZES, SIZES)
def test_whatever_the_engine_says_each_region_is_one_that_label_studio_takes(rows, width, height):
    found = draw(boxes(*rows), width, height)
    json.dumps(found, allow_nan=False)
    for region in found:
        value = region["value"]
        assert 0 <= value["x"] <= 100
        assert 0 <= value["y"] <= 100
        assert 0 < value["width"] <= 100
        assert 0 < value["height"] <= 100
        assert value["x"] + value["width"] <= 100 + 1e-9
        assert value["y"] + value["height"] <= 100 + 1e-9
        assert 0 <= region["score"] <= 1
    answer = {"result": found, "score": 0.5, "model_version": "v"}
    assert LabelInterface(CONFIG).validate_prediction(answer, return_errors=True) == []


@given(st.data(), SIZES, SIZES)
def test_per_cent_and_back_to_pixels_is_the_same_box(data, width, height):
    x0, x1 = sorted(data.draw(st.floats(0, width, width=32)) for _ in "ab")
    y0, y1 = sorted(data.draw(st.floats(0, height, width=32)) for _ in "ab")
    found = draw(boxes([x0, y0, x1, y1, 0.5, 0]), width, height)
    if not found:
        assert x1 - x0 < 1e-3 or y1 - y0 < 1e-3
        return
    value = found[0]["value"]
    near = {"abs": 1e-6 * max(width, height)}
    assert value["x"] / 100 * width == pytest.approx(x0, **near)
    assert value["y"] / 100 * height == pytest.approx(y0, **near)
    assert (value["x"] + value["width"]) / 100 * width == pytest.approx(x1, **near)
    assert (value["y"] + value["height"]) / 100 * height == pytest.approx(y1, **near)
