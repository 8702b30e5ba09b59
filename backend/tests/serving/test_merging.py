"""What several models say of an image as one result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.results import Boxes, Keypoints, Mask, Masks
from ls_yolo.serving import merging

EDGES = st.integers(0, 30)
ROWS = st.lists(
    st.tuples(EDGES, EDGES, EDGES, EDGES, st.floats(0, 1, width=32), st.integers(0, 2)), max_size=12
)


def boxes(*rows):
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


@given(ROWS, st.floats(0, 1), st.booleans())
def test_every_box_is_in_one_group_of_its_class_the_best_first(rows, least, smaller):
    found = boxes(*rows)
    groups = merging.groups(found, least, smaller)
    assert sorted(index for group in groups for index in group) == list(range(len(rows)))
    for group in groups:
        assert len({found.classes[index] for index in group}) == 1
        assert found.scores[group[0]] == max(found.scores[index] for index in group)
    best = [found.scores[group[0]] for group in groups]
    assert best == sorted(best, reverse=True)


def test_a_part_of_a_box_is_the_same_by_the_smaller_area_but_not_by_iou():
    found = boxes([0, 0, 100, 100, 0.9, 0], [10, 10, 30, 30, 0.8, 0])
    assert merging.groups(found, 0.5, smaller=True) == [[0, 1]]
    assert merging.groups(found, 0.5, smaller=False) == [[0], [1]]


def test_classes_of_both_models_become_labels_and_what_has_none_is_left_out():
    one = boxes([0, 0, 10, 10, 0.6, 3], [50, 50, 60, 60, 0.9, 4])
    two = boxes([0, 0, 10, 9, 0.8, 0], [80, 80, 90, 90, 0.5, 1])
    found, labels = merging.joined([one, two], [{3: "Crew"}, {0: "Crew", 1: "Bus"}], 0.5)
    assert [(labels[index], score) for index, score in zip(
        found.classes.tolist(), found.scores.tolist(), strict=True
    )] == [("Crew", pytest.approx(0.8)), ("Bus", pytest.approx(0.5))]  # fmt: skip


def test_masks_stay_with_their_boxes():
    def masks(row, left):
        return Masks(boxes(row), [lambda: Mask(left, 0, np.ones((1, 1), np.bool_))])

    found, _ = merging.joined(
        [masks([0, 0, 9, 9, 0.6, 0], 1), masks([20, 0, 29, 9, 0.8, 0], 2)],
        [{0: "a"}, {0: "a"}],
        0.5,
    )
    assert [make().left for make in found.masks] == [2, 1]


def test_unlike_kinds_are_not_merged():
    masks = Masks(boxes([0, 0, 9, 9, 0.6, 0]), [lambda: Mask(0, 0, np.ones((1, 1), np.bool_))])
    assert merging.joined([masks, boxes()], [{}, {}], 0.5) is None
    one, two = (
        Keypoints(boxes(), np.zeros((0, k, 2), np.float32), np.zeros((0, k), np.float32))
        for k in (3, 17)
    )
    assert merging.joined([one, two], [{}, {}], 0.5) is None
