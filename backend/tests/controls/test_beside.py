"""Shapes whose labels stand in a Labels tag beside: pairs of regions, for the page one."""

from __future__ import annotations

import numpy as np
import pytest

from backend.tests.controls.drawing import IMAGE, boxes, draw, faults, masks
from ls_yolo import controls
from ls_yolo.controls import NothingToDraw
from ls_yolo.labelstudio import label_config

LABELS = '<Labels name="names" toName="image"><Label value="Person"/><Label value="car"/></Labels>'
MASK = masks(np.ones((20, 30)), left=10, top=20)


def text(shape, labels=LABELS):
    return f'<View>{IMAGE}<{shape} name="shape" toName="image"/>{labels}</View>'


@pytest.mark.parametrize(
    ("shape", "result", "place"),
    [
        ("Rectangle", boxes((20, 10, 60, 30, 0.5, 0)), "width"),
        ("Polygon", MASK, "points"),
        ("Brush", MASK, "rle"),
        ("Bitmask", MASK, "imageDataURL"),
        ("Ellipse", MASK, "radiusX"),
    ],
)
def test_a_shape_and_its_label_have_one_id_one_place_and_one_score(shape, result, place):
    found = draw(text(shape), result, 100, 100)
    drawn, label = found
    assert (drawn["from_name"], drawn["type"]) == ("shape", shape.lower())
    assert (label["from_name"], label["type"]) == ("names", "labels")
    assert drawn["id"] == label["id"]
    assert drawn["score"] == label["score"]
    assert place in drawn["value"]
    assert label["value"] == {**drawn["value"], "labels": ["Person"]}
    assert faults(text(shape), found) == []


def test_each_object_has_an_id_of_its_own():
    found = draw(text("Rectangle"), boxes((0, 0, 9, 9, 0.5, 0), (0, 0, 9, 9, 0.5, 1)), 100, 100)
    assert [region["id"] == found[0]["id"] for region in found] == [True, True, False, False]


def test_without_labels_beside_a_shape_is_left_to_people():
    with pytest.raises(NothingToDraw, match="shapes without labels beside a Labels tag"):
        controls.drawn(text("Rectangle", ""))


def test_labels_of_another_image_are_not_beside_it():
    other = LABELS.replace('toName="image"', 'toName="other"')
    with pytest.raises(NothingToDraw):
        controls.drawn(text("Rectangle", '<Image name="other" value="$b"/>' + other))


def test_a_labels_tag_is_no_control_of_its_own():
    found = controls.drawn(text("Rectangle"))
    assert [control.from_name for control in found] == ["shape"]
    assert [label.value for label in found[0].labels] == ["Person", "car"]


def test_in_a_repeater_both_are_numbered_alike():
    numbered = (
        '<View><Repeater on="$pages"><Image name="i_{{idx}}" value="$pages[{{idx}}]"/>'
        '<Rectangle name="r_{{idx}}" toName="i_{{idx}}"/>'
        '<Labels name="l_{{idx}}" toName="i_{{idx}}"><Label value="a"/></Labels></Repeater></View>'
    )
    (control,) = controls.drawn(numbered)
    shown = label_config.shown(control, {"pages": ["a.jpg", "b.jpg"]})
    assert [one.control.labels_from for one in shown] == ["l_0", "l_1"]
    assert [one.control.from_name for one in shown] == ["r_0", "r_1"]
