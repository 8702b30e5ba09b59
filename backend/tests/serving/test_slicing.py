"""Slices: every pixel is in one, and what several of them see is one object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.results import Boxes, Keypoints, Mask, Masks, OrientedBoxes
from ls_yolo.serving.slicing import merged, slices

SIZES = st.integers(1, 5000)


def boxes(*rows):
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


@given(SIZES, SIZES, st.integers(32, 1500), st.floats(0, 0.9))
def test_every_pixel_is_in_a_slice_and_none_is_larger_than_asked(width, height, side, overlap):
    found = slices(width, height, side, overlap)
    if width <= side and height <= side:
        assert found == []
        return
    assert len(set(found)) == len(found)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left == min(side, width)
        assert bottom - top == min(side, height)
    for edges, length in (({(s[0], s[2]) for s in found}, width),
                          ({(s[1], s[3]) for s in found}, height)):  # fmt: skip
        end = 0
        for first, last in sorted(edges):
            assert first <= end
            end = last
        assert end == length


def test_neighbours_share_a_fifth():
    assert slices(1152, 640, 640) == [(0, 0, 640, 640), (512, 0, 1152, 640)]


@given(st.data())
def test_whole_objects_found_in_overlapping_slices_are_found_once(data):
    """Objects that lie apart, each seen whole by every slice that holds it."""
    cells = data.draw(st.sets(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=12))
    truth = boxes(*((x * 100 + 20, y * 100 + 20, x * 100 + 80, y * 100 + 80, 0.9, (x + y) % 3)
                    for x, y in sorted(cells)))  # fmt: skip
    parts = [truth]
    for left, top, right, bottom in slices(2000, 2000, 640):
        inside = (
            (truth.xyxy[:, 0] >= left) & (truth.xyxy[:, 1] >= top)
            & (truth.xyxy[:, 2] <= right) & (truth.xyxy[:, 3] <= bottom)
        )  # fmt: skip
        seen = truth.take(np.flatnonzero(inside)).moved(-left, -top)
        parts.append(seen.moved(left, top))
    found = merged(parts)
    assert {tuple(row) for row in found.xyxy.tolist()} == {
        tuple(row) for row in truth.xyxy.tolist()
    }
    assert len(found.scores) == len(truth.scores)


def test_what_lies_across_an_edge_grows_together_under_the_best_score():
    found = merged([boxes([0, 0, 60, 40, 0.6, 1]), boxes([20, 0, 100, 40, 0.8, 1])])
    assert found.xyxy.tolist() == [[0, 0, 100, 40]]
    assert found.scores.tolist() == [pytest.approx(0.8)]


def test_objects_of_other_classes_and_those_that_hardly_touch_stay_apart():
    found = merged(
        [boxes([0, 0, 50, 50, 0.9, 0], [0, 0, 50, 50, 0.8, 1]), boxes([40, 40, 90, 90, 0.7, 0])]
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_masks_of_one_object_are_united():
    def masks(box, mask):
        return Masks(boxes(box), [lambda: mask])

    one = masks([0, 0, 6, 4, 0.6, 1], Mask(0, 0, np.ones((4, 6), np.bool_)))
    two = masks([2, 0, 8, 4, 0.8, 1], Mask(2, 0, np.ones((4, 6), np.bool_)))
    found = merged([one, two])
    (mask,) = (make() for make in found.masks)
    assert (mask.left, mask.top, mask.pixels.shape, mask.pixels.all()) == (0, 0, (4, 8), True)
    assert found.boxes.xyxy.tolist() == [[0, 0, 8, 4]]


def test_of_turned_boxes_and_bodies_the_better_one_stays_as_it_is():
    turned = OrientedBoxes(
        np.array([[50, 50, 40, 20, 0.5], [51, 50, 40, 20, 0.5]], np.float32),
        np.array([0.7, 0.9], np.float32),
        np.zeros(2, np.int64),
    )
    assert merged([turned]).xywhr.tolist() == [[51, 50, 40, 20, 0.5]]
    bodies = Keypoints(
        boxes([0, 0, 50, 50, 0.7, 0], [1, 0, 50, 50, 0.9, 0]),
        np.array([[[1, 1]], [[2, 2]]], np.float32),
        np.ones((2, 1), np.float32),
    )
    assert merged([bodies]).xy.tolist() == [[[2, 2]]]


def test_nothing_makes_nothing():
    assert merged([boxes(), boxes()]).scores.size == 0
