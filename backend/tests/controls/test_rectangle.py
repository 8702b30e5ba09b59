"""Rectangles: boxes in pixels to regions in per cent, always such as Label Studio takes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from label_studio_sdk.converter.utils import convert_annotation_to_yolo_obb
from label_studio_sdk.label_interface import LabelInterface

from backend.tests.controls import drawing
from backend.tests.controls.drawing import boxes, config, oriented, tag
from ls_yolo import controls
from ls_yolo.controls import CONTROLS
from ls_yolo.controls.base import Target
from ls_yolo.labelstudio import label_config
from ls_yolo.results import RESULTS, Keypoints, Masks

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/></RectangleLabels></View>"""
(CONTROL,) = label_config.parse(CONFIG)
SIZES = st.integers(1, 20_000)
ANY = st.floats(width=32)  # NaN and both infinities among them


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


# Turned boxes

OBB = config(tag("RectangleLabels", 'model_obb="true"'))
PLAIN = config(tag("RectangleLabels"))
SIDES = st.integers(20, 4000)
FULL_TURN = st.floats(-7, 7, width=32)


def corners(xywhr):
    """The four corners of a turned box, in pixels, by the definition of `OrientedBoxes`."""
    x, y, w, h, angle = map(float, xywhr)
    cos, sin = np.cos(angle), np.sin(angle)
    ends = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    return np.array([x, y]) + ends @ np.array([[cos, sin], [-sin, cos]])


def apart(found, expected):
    """How far each corner found is from the nearest that is expected, at most."""
    distances = np.linalg.norm(np.array(found)[:, None] - np.array(expected)[None], axis=2)
    return max(distances.min(axis=0).max(), distances.min(axis=1).max())


def drawn_corners(region):
    place = {**region, **region["value"]}
    return convert_annotation_to_yolo_obb(place, normalize=False)


def test_a_turned_box_is_turned_clockwise_about_its_top_left_corner():
    (region,) = drawing.draw(OBB, oriented((50, 50, 40, 20, np.pi / 6, 0.9, 0)), 100, 100)
    value = region["value"]
    assert value["rotation"] == pytest.approx(30)
    assert (value["width"], value["height"]) == (pytest.approx(40), pytest.approx(20))
    # Half the width back along the side, half the height up from it.
    assert value["x"] == pytest.approx(
        50 - 20 * np.cos(np.pi / 6) + 10 * np.sin(np.pi / 6), abs=1e-4
    )
    assert value["y"] == pytest.approx(
        50 - 20 * np.sin(np.pi / 6) - 10 * np.cos(np.pi / 6), abs=1e-4
    )


@given(st.data(), SIDES, SIDES, FULL_TURN)
def test_label_studios_converter_finds_the_corners_of_a_turned_box_in_the_image(
    data, width, height, angle
):
    # A box that lies in the image: its diagonal does not reach the nearest side.
    x, y = data.draw(st.floats(8, width - 8)), data.draw(st.floats(8, height - 8))
    reach = min(x, y, width - x, height - y)
    w = data.draw(st.floats(1, reach * 1.2))
    h = data.draw(st.floats(1, reach * 1.2))
    assume(np.hypot(w, h) / 2 <= reach)
    (region,) = drawing.draw(OBB, oriented((x, y, w, h, angle, 0.9, 0)), width, height)
    assert apart(drawn_corners(region), corners((x, y, w, h, np.float32(angle)))) < 0.1
    assert 0 <= region["value"]["rotation"] <= 360
    assert drawing.faults(OBB, [region]) == []


def test_of_the_four_forms_of_a_box_that_reaches_out_the_one_with_its_corner_inside_is_taken():
    box = 10, 50, 60, 10, np.pi / 4, 0.9, 0  # its left end is out at the left
    (region,) = drawing.draw(OBB, oriented(box), 100, 100)
    assert apart(drawn_corners(region), corners(box[:5])) < 0.1
    assert 0 <= region["value"]["x"] <= 100
    assert 0 <= region["value"]["y"] <= 100


def test_a_side_that_is_longer_than_the_image_is_high_is_drawn_along_its_width():
    box = 500, 50, 150, 10, 0.2, 0.9, 0
    (region,) = drawing.draw(OBB, oriented(box), 1000, 100)
    assert apart(drawn_corners(region), corners(box[:5])) < 0.1
    assert drawing.faults(OBB, [region]) == []


@given(st.floats(100, 900), st.floats(30, 70), st.floats(20, 3000), st.floats(20, 60), FULL_TURN)
def test_most_of_a_box_with_no_corner_inside_is_drawn_all_the_same(x, y, w, h, angle):
    (region,) = drawing.draw(OBB, oriented((x, y, w, h, angle, 0.9, 0)), 1000, 100)
    expected, found = (
        cv2.fillConvexPoly(np.zeros((100, 1000), np.uint8), np.round(points).astype(np.int32), 1)
        for points in (corners((x, y, w, h, np.float32(angle))), np.array(drawn_corners(region)))
    )
    seen = expected.sum()
    assert (expected & found).sum() >= 0.5 * seen


@given(
    st.lists(st.tuples(ANY, ANY, ANY, ANY, ANY, ANY, st.integers(0, 2)), max_size=5),
    SIZES,
    SIZES,
    st.sampled_from([OBB, PLAIN]),
)
def test_whatever_the_engine_says_of_turned_boxes_label_studio_takes_it(rows, width, height, text):
    found = drawing.draw(text, oriented(*rows), width, height)
    json.dumps(found, allow_nan=False)
    for region in found:
        value = region["value"]
        assert all(0 <= value[key] <= 100 for key in ("x", "y", "width", "height"))
    assert drawing.faults(text, found) == []


def test_without_model_obb_a_turned_box_is_drawn_upright_around_its_corners():
    box = 50, 50, 40, 20, 0.5, 0.9, 0
    (region,) = drawing.draw(PLAIN, oriented(box), 100, 100)
    low, high = corners(box[:5]).min(axis=0), corners(box[:5]).max(axis=0)
    value = region["value"]
    assert (value["x"], value["y"]) == (
        pytest.approx(low[0], abs=1e-4),
        pytest.approx(low[1], abs=1e-4),
    )
    assert value["x"] + value["width"] == pytest.approx(high[0], abs=1e-4)
    assert value["y"] + value["height"] == pytest.approx(high[1], abs=1e-4)
    assert value["rotation"] == 0


def test_with_model_obb_only_a_model_of_turned_boxes_will_do():
    control = drawing.parsed(OBB)
    assert [task for task in RESULTS if controls.takes(control, task)] == ["obb"]
    control = drawing.parsed(PLAIN)
    assert [task for task in RESULTS if controls.takes(control, task)] == [
        task for task in RESULTS if task != "classify"
    ]


def test_the_boxes_of_masks_and_of_bodies_are_rectangles_too_and_no_mask_is_made():
    def never():
        raise AssertionError("a mask was made")

    rows = boxes([20, 10, 120, 60, 0.75, 0])
    bodies = Keypoints(rows, np.zeros((1, 2, 2), np.float32), np.ones((1, 2), np.float32))
    assert draw(Masks(rows, [never]), 200, 100) == draw(rows, 200, 100)
    assert draw(bodies, 200, 100) == draw(rows, 200, 100)
