"""What several models say of an image as one result."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.results import Boxes
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


def test_of_two_models_the_better_object_of_a_label_stays_and_what_has_no_label_goes():
    one = boxes([0, 0, 10, 10, 0.6, 3], [50, 50, 60, 60, 0.9, 4], [70, 0, 80, 9, 0.3, 3])
    two = boxes([0, 0, 10, 9, 0.8, 0], [80, 80, 90, 90, 0.5, 1])
    found = merging.kept([one, two], [{3: "Crew"}, {0: "Crew", 1: "Bus"}], 0.5)
    assert [indices.tolist() for indices in found] == [[2], [0, 1]]


def test_objects_with_different_labels_are_not_one():
    same = boxes([0, 0, 10, 10, 0.6, 0])
    found = merging.kept([same, same], [{0: "Crew"}, {0: "Bus"}], 0.5)
    assert [indices.tolist() for indices in found] == [[0], [0]]


@given(ROWS, ROWS, st.floats(0, 1))
def test_of_each_label_the_best_object_of_all_models_stays(one, two, least):
    parts, labels = [boxes(*one), boxes(*two)], [{0: "a", 1: "b"}, {0: "b", 2: "a"}]
    found = merging.kept(parts, labels, least)
    for label in "ab":

        def scores(part, of, indices=None, label=label):
            every = range(len(part.scores)) if indices is None else indices.tolist()
            return [part.scores[i] for i in every if of.get(int(part.classes[i])) == label]

        all_of = [s for part, of in zip(parts, labels, strict=True) for s in scores(part, of)]
        stay = [
            s
            for part, of, indices in zip(parts, labels, found, strict=True)
            for s in scores(part, of, indices)
        ]
        assert len(stay) <= len(all_of)
        assert max(stay, default=None) == max(all_of, default=None)
