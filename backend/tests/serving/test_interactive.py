"""What is drawn with a smart tool, and which object is meant by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.results import Boxes, Mask, Masks
from ls_yolo.serving import interactive
from ls_yolo.serving.interactive import Point, Prompts

CLICK = {
    "type": "keypointlabels",
    "from_name": "point",
    "to_name": "image",
    "is_positive": True,
    "value": {"x": 50, "y": 25, "width": 0.4, "keypointlabels": ["Bus"]},
}
BOX = {
    "type": "rectanglelabels",
    "from_name": "smart",
    "to_name": "image",
    "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0,
              "rectanglelabels": ["Bus"]},
}  # fmt: skip
NUMBERS = st.floats(-50, 150)


def boxes(*rows):
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


def changed(region, **value):
    return region | {"value": region["value"] | value}


def test_a_drawn_box_is_read_with_its_label_and_tool():
    assert interactive.prompts({"result": [BOX]}) == Prompts(
        "Bus", "smart", "image", box=(10, 20, 40, 60)
    )


def test_all_clicks_for_a_label_on_an_image_are_one_prompt():
    other = changed(CLICK, keypointlabels=["Person"])
    beside = changed(CLICK, x=1) | {"is_positive": False}
    elsewhere = CLICK | {"item_index": 3}
    found = interactive.prompts({"result": [other, elsewhere, CLICK, beside]})
    assert found.label == "Bus"
    assert found.points == (Point(50, 25, True), Point(1, 25, False))


def test_a_shape_with_its_labels_in_a_tag_of_their_own_is_read_once():
    shape = BOX | {"type": "rectangle", "id": "a", "value": {**BOX["value"]}}
    del shape["value"]["rectanglelabels"]
    labels = shape | {"type": "labels", "from_name": "l"}
    labels["value"] = shape["value"] | {"labels": ["Bus"]}
    found = interactive.prompts({"result": [shape, labels]})
    assert (found.label, found.box, found.points) == ("Bus", (10, 20, 40, 60), ())
    assert found.ids == {"a"}


def test_what_is_drawn_on_one_of_several_images_names_it():
    assert interactive.prompts({"result": [CLICK | {"item_index": 3}]}).item_index == 3


@pytest.mark.parametrize(
    "context",
    [
        None, [], {}, {"result": None}, {"result": []}, {"result": ["x", None, {}]},
        {"result": [CLICK | {"value": None}]},
        {"result": [changed(CLICK, keypointlabels=[])]},
        {"result": [changed(CLICK, keypointlabels=[7])]},
        {"result": [changed(CLICK, x="left")]},
        {"result": [changed(CLICK, x=float("nan"))]},
        {"result": 5},
        {"result": [changed(CLICK, x=10**400)]},
        {"result": [changed(BOX, x=1e308, width=1e308)]},
        {"result": [CLICK | {"from_name": None}]},
        {"result": [BOX | {"type": "choices"}]},
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_none(context):
    assert interactive.prompts(context) is None


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.integers(1, 4000), st.integers(1, 4000))
def test_what_is_looked_at_lies_in_the_image_and_holds_what_of_the_box_does(box, width, height):
    left, right = sorted(edge / 100 * width for edge in box[::2])
    top, bottom = sorted(edge / 100 * height for edge in box[1::2])
    x0, y0, x1, y1 = interactive.crop((left, top, right, bottom), width, height)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    if left < width and right > 0 and top < height and bottom > 0:
        assert x0 <= max(left, 0)
        assert x1 >= min(right, width)
        assert y0 <= max(top, 0)
        assert y1 >= min(bottom, height)


def test_of_the_objects_of_the_label_the_one_that_fits_the_box_best_is_meant():
    found = boxes(
        [0, 0, 90, 90, 0.9, 0], [12, 11, 41, 39, 0.5, 0], [10, 10, 40, 40, 0.99, 1]
    )  # fmt: skip
    drawn = Prompts("Bus", "smart", "image", box=(10, 10, 40, 40))
    assert interactive.meant(found, drawn, {0}) == 1
    assert interactive.meant(found, drawn, {0, 1}) == 2
    assert interactive.meant(found, drawn, {7}) is None


def test_what_hardly_touches_the_box_is_not_meant():
    drawn = Prompts("Bus", "smart", "image", box=(0, 0, 10, 10))
    assert interactive.meant(boxes([9, 9, 40, 40, 0.9, 0]), drawn, {0}) is None


def test_a_click_means_the_surest_object_under_it():
    found = boxes([0, 0, 50, 50, 0.6, 0], [10, 10, 30, 30, 0.8, 0], [60, 60, 90, 90, 0.9, 0])

    def meant(*points):
        return interactive.meant(found, Prompts("Bus", "p", "image", points=points), {0})

    assert meant(Point(20, 20, True)) == 1
    assert meant(Point(20, 20, True), Point(45, 45, True)) == 0
    assert meant(Point(20, 20, True), Point(12, 12, False)) is None
    assert meant(Point(45, 45, True), Point(20, 20, False)) is None
    assert meant(Point(55, 5, True)) is None


def test_a_click_beside_the_outline_but_in_its_bounds_means_another_object():
    ring = np.ones((40, 40), np.bool_)
    ring[10:30, 10:30] = False
    result = Masks(
        boxes([0, 0, 40, 40, 0.9, 0], [10, 10, 30, 30, 0.5, 0]),
        [lambda: Mask(0, 0, ring), lambda: Mask(10, 10, np.ones((20, 20), np.bool_))],
    )

    def meant(x, y):
        return interactive.meant(
            result, Prompts("Bus", "p", "image", points=(Point(x, y, True),)), {0}
        )

    assert meant(20, 20) == 1
    assert meant(5, 5) == 0


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_per_cent_become_pixels(width, height):
    drawn = Prompts("Bus", "p", "image", None, (0, 0, 100, 100), (Point(50, 100, True),))
    found = interactive.in_pixels(drawn, width, height)
    assert found.box == pytest.approx((0, 0, width, height))
    assert (found.points[0].x, found.points[0].y) == pytest.approx((width / 2, height))


@given(
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.lists(st.builds(Point, NUMBERS, NUMBERS, st.booleans()), max_size=4),
)
def test_what_is_drawn_beside_an_image_is_cut_off(box, points):
    drawn = Prompts("Bus", "p", "image", None, box, tuple(points))
    found = interactive.inside(drawn, 100, 80)
    assert set(found.points) <= set(points)
    assert all(0 <= p.x <= 100 and 0 <= p.y <= 80 for p in found.points)
    if found.box is None:
        left, top, right, bottom = box
        assert max(left, 0) >= min(right, 100) or max(top, 0) >= min(bottom, 80)
    else:
        assert 0 <= found.box[0] < found.box[2] <= 100
        assert 0 <= found.box[1] < found.box[3] <= 80
    assert interactive.inside(found, 100, 80) == found


def test_a_negative_click_alone_points_at_nothing():
    def says(**drawn):
        return interactive.points_at_something(Prompts("Bus", "p", "image", **drawn))

    assert not says(points=(Point(1, 1, False),))
    assert says(points=(Point(1, 1, False), Point(2, 2, True)))
    assert says(points=(Point(1, 1, False),), box=(0, 0, 1, 1))
