"""Points of bodies: which label names which point, and the box that they are children of."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.controls.drawing import IMAGE, bodies, config, draw, faults, parsed, tag
from ls_yolo import controls
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import LabelConfigError

NOSE = '<Label value="nose" predicted_values="person" model_index="0"/>'
EYES = (
    '<View><Label value="left_eye" predicted_values="person" model_index="1"/>'
    '<Label value="right_eye" predicted_values="person" model_index="2"/></View>'
)
BOX = tag(
    "RectangleLabels", 'model_skip="true"', '<Label value="Human" predicted_values="person"/>'
).replace('name="label"', 'name="points_bbox"')
ONE = [(10, 20, 50, 80, 0.9, 0)]
POINTS = [[(20, 30), (18, 28), (22, 28)]]


def points(attributes="", inner=NOSE + EYES, beside=BOX):
    return config(beside, tag("KeyPointLabels", attributes, inner, name="points"))


def labels(regions, kind="keypointlabels"):
    return [region["value"][kind][0] for region in regions if region["type"] == kind]


def unmapped(text, names=("person",)):
    (control,) = [c for c in label_config.parse(text) if c.tag == "KeyPointLabels"]
    found = controls.match(control, names)
    _, missing = controls.boxes(control, text, found.labels)
    return {**found.unmapped, **missing}


def test_each_point_is_a_child_of_its_body_s_box():
    rows = [*ONE, (50, 20, 90, 80, 0.8, 0)]
    found = draw(points(), bodies(rows, [*POINTS, [(60, 30), (58, 28), (62, 28)]]), 100, 100)
    assert faults(points(), found) == []
    first, second = (region for region in found if region["type"] == "rectanglelabels")
    assert (first["from_name"], first["value"]["rectanglelabels"]) == ("points_bbox", ["Human"])
    assert first["value"]["x"] == 10
    assert first["id"] != second["id"]
    parents = [region["parentID"] for region in found if region["type"] == "keypointlabels"]
    assert parents == [first["id"]] * 3 + [second["id"]] * 3
    assert labels(found) == ["nose", "left_eye", "right_eye"] * 2


def test_a_point_has_its_place_its_size_and_its_own_score():
    text = points('model_point_size="5" model_add_bboxes="false"')
    (region, *_) = draw(text, bodies(ONE, POINTS, [[0.7, 1, 1]]), 200, 100)
    assert region["value"] | {"keypointlabels": 0} == {
        "x": 10,
        "y": 30,
        "width": 2.5,
        "keypointlabels": 0,
    }
    assert region["score"] == pytest.approx(0.7)


def test_points_below_the_threshold_are_left_out_and_the_box_stays():
    result = bodies(ONE, POINTS, [[0.9, 0.4, 0.1]])
    assert labels(draw(points('model_point_threshold="0.5"'), result, 100, 100)) == ["nose"]
    assert labels(draw(points(), result, 100, 100)) == ["nose", "left_eye", "right_eye"]
    found = draw(points('model_point_threshold="1"'), result, 100, 100)
    assert [region["type"] for region in found] == ["rectanglelabels"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (points(beside=""), "found no RectangleLabels called 'points_bbox' on 'image', expected"),
        (
            points(beside=BOX.replace('predicted_values="person"', "")),
            "boxes of 'person' are left out: no label of 'points_bbox' stands for them",
        ),
    ],
)
def test_without_a_control_and_a_label_for_the_box_there_are_points_only_and_a_reason(text, why):
    found = draw(text, bodies(ONE, POINTS), 100, 100)
    assert labels(found) == ["nose", "left_eye", "right_eye"]
    assert not any("parentID" in region for region in found)
    assert faults(text, found) == []
    (said,) = unmapped(text).values()
    assert why in said


def test_without_boxes_asked_for_there_are_points_only_and_nothing_to_say():
    text = points('model_add_bboxes="false"', beside="")
    assert labels(draw(text, bodies(ONE, POINTS), 100, 100)) == ["nose", "left_eye", "right_eye"]
    assert unmapped(text) == {}


def test_the_control_for_the_boxes_does_not_draw_them_a_second_time():
    text = points(beside=BOX.replace('model_skip="true"', ""))
    assert [control.from_name for control in controls.untaken(controls.drawn(text))] == ["points"]


@pytest.mark.parametrize(
    ("inner", "why"),
    [
        ('<Label value="a" predicted_values="person"/>', "found no model_index, expected"),
        ('<Label value="a" model_index="9"/>', "found no predicted_values, expected the class"),
        (
            '<Label value="a" predicted_values="persn" model_index="9"/>',
            "no class is called 'persn'; did you mean 'person'?",
        ),
        (
            '<Label value="a" predicted_values="person" model_index="0"/>',
            "another label has point 0 already",
        ),
    ],
)
def test_a_label_that_names_no_point_is_told_why(inner, why):
    (said,) = unmapped(points(inner=NOSE + inner)).values()
    assert said.startswith("'a' names no point: ")
    assert why in said


def test_a_class_without_points_named_has_none_nor_a_box():
    result = bodies([(10, 20, 50, 80, 0.9, 1)], POINTS)  # a car
    assert draw(points(), result, 100, 100) == []


def test_a_label_may_name_the_same_point_of_several_classes():
    text = points(inner=NOSE.replace('"person"', '"person, car"'))
    assert labels(draw(text, bodies([(0, 0, 9, 9, 0.9, 1)], [[(1, 1)]]), 100, 100)) == ["nose"]


@pytest.mark.parametrize(
    "attributes", ['model_point_threshold="2"', 'model_point_size="-1"', 'model_point_size="big"']
)
def test_a_number_that_is_none_is_refused_by_name(attributes):
    with pytest.raises(LabelConfigError, match=r"model_point_.* of 'points': found "):
        controls.drawn(points(attributes))


def test_shapes_without_labels_are_pairs_with_one_parent():
    text = (
        f"<View>{IMAGE}{BOX}<KeyPoint name='points' toName='image'/>"
        f"<Labels name='names' toName='image'>{NOSE}{EYES}</Labels></View>"
    )
    found = draw(text, bodies(ONE, POINTS), 100, 100)
    assert faults(text, found) == []
    box, *rest = found
    assert [region["type"] for region in rest] == ["keypoint", "labels"] * 3
    assert {region["parentID"] for region in rest} == {box["id"]}
    ids = [region["id"] for region in rest]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 3


ANY = st.floats(width=32)


@given(st.lists(st.tuples(ANY, ANY, ANY), min_size=1, max_size=4), ANY, st.integers(1, 20_000))
def test_whatever_the_engine_says_label_studio_takes_what_is_drawn(rows, edge, size):
    result = bodies(
        [(edge, 0, 50, 80, 0.9, 0)], [[row[:2] for row in rows]], [[row[2] for row in rows]]
    )
    with np.errstate(invalid="ignore"):
        found = draw(points(), result, size, size)
    json.dumps(found, allow_nan=False)
    for region in found:
        assert 0 <= region["value"]["x"] <= 100
        assert 0 <= region["value"]["y"] <= 100
    assert faults(points(), found) == []


def test_a_pose_model_alone_will_do():
    assert controls.takes(parsed(points(beside="")), "pose")
    assert not controls.takes(parsed(points(beside="")), "detect")
