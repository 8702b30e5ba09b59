"""Slices: every pixel is in one, and what several of them see is one object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.results import Boxes, Keypoints, Mask, Masks, OrientedBoxes
from ls_yolo.serving.slicing import made, merged, slices

SIZES = st.integers(1, 5000)
ONE = np.ones((1, 1), np.float32)


def turned(xywhr, score):
    return OrientedBoxes(
        np.array([xywhr], np.float32), np.array([score], np.float32), np.zeros(1, np.int64)
    )


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
    parts = [turned([50, 50, 40, 20, 0.5], 0.7), turned([51, 50, 40, 20, 0.5], 0.9)]
    assert merged(parts).xywhr.tolist() == [[51, 50, 40, 20, 0.5]]
    bodies = [
        Keypoints(boxes([n, 0, 50, 50, score, 0]), np.full((1, 1, 2), n, np.float32), ONE)
        for n, score in ((1, 0.7), (2, 0.9))
    ]
    assert merged(bodies).xy.tolist() == [[[2, 2]]]


def test_turned_boxes_whose_bounds_overlap_but_which_share_nothing_stay_apart():
    # Two boats side by side, at 45 degrees.
    parts = [
        turned([100, 100, 100, 20, np.pi / 4], 0.9),
        turned([121, 79, 100, 20, np.pi / 4], 0.8),
    ]
    assert len(merged(parts).scores) == 2


def test_what_the_model_tells_apart_in_one_slice_stays_apart():
    adult, child = [0, 0, 100, 300, 0.9, 0], [30, 150, 80, 300, 0.8, 0]
    assert len(merged([boxes(adult, child)]).scores) == 2
    assert len(merged([boxes(adult, child), boxes(adult, child)]).scores) == 2


def test_masks_of_slices_are_made_at_once():
    calls = []

    def make():
        calls.append(1)
        return Mask(0, 0, np.ones((2, 2), np.bool_))

    ready = made(Masks(boxes([0, 0, 2, 2, 0.9, 0]), [make]))
    assert [one().pixels.shape for one in (*ready.masks, *ready.masks)] == [(2, 2)] * 2
    assert len(calls) == 1


def test_nothing_makes_nothing():
    assert merged([boxes(), boxes()]).scores.size == 0
