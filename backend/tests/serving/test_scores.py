"""The score by which uncertainty sampling orders tasks."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from ls_yolo.serving import scores

HOW = [f"{measure}-{over}" for measure in scores.MEASURES for over in scores.OVER]


def regions(*probabilities):
    return [{"score": p, "value": {}} for p in probabilities]


@pytest.mark.parametrize("how", HOW)
def test_every_score_is_within_0_and_1_however_many_regions_there_are(how):
    rng = random.Random(how)
    for _ in range(300):
        found = scores.score(regions(*(rng.random() for _ in range(rng.randrange(40)))), how)
        assert 0 <= found <= 1


@pytest.mark.parametrize("how", HOW)
def test_what_the_model_is_surer_of_has_the_higher_score(how):
    # Above a half every measure falls as the probability rises.
    line = [scores.score(regions(p), how) for p in (0.5, 0.6, 0.7, 0.8, 0.9, 0.99)]
    assert all(a < b for a, b in itertools.pairwise(line))


@pytest.mark.parametrize("how", HOW)
def test_a_task_without_any_object_is_shown_last(how):
    assert scores.score([], how) == 1
    assert scores.score([{"value": {"number": 3}}], how) == 1
    assert scores.score(regions(0.9), how) < 1


@pytest.mark.parametrize("how", HOW)
def test_the_order_of_regions_does_not_matter(how):
    some = regions(0.3, 0.9, 0.55)
    assert scores.score(some, how) == pytest.approx(scores.score(some[::-1], how))


def test_the_measures_are_those_of_the_formulas():
    assert scores.score(regions(0.8, 0.6), "least_confidence-mean") == pytest.approx(0.7)
    assert scores.score(regions(0.8, 0.6), "least_confidence-max") == pytest.approx(0.6)
    assert scores.score(regions(0.8, 0.6), "least_confidence-sum") == pytest.approx(1 / 1.6)
    assert scores.score(regions(0.25), "margin-mean") == pytest.approx(0.5)
    assert scores.score(regions(0.5), "entropy-mean") == pytest.approx(0)
    entropy = -0.9 * math.log2(0.9) - 0.1 * math.log2(0.1)
    assert scores.score(regions(0.9), "entropy-max") == pytest.approx(1 - entropy)


def test_the_sum_grows_with_each_uncertain_region_where_the_mean_does_not():
    one, many = regions(0.6), regions(*[0.6] * 10)
    assert scores.score(many, "entropy-mean") == pytest.approx(scores.score(one, "entropy-mean"))
    assert scores.score(many, "entropy-sum") < scores.score(one, "entropy-sum")


def test_scores_that_are_no_numbers_are_left_out():
    odd = [{"score": None}, {"score": "0.1"}, {"score": float("nan")}, {"score": True}, "text"]
    assert scores.score([*odd, *regions(0.7)]) == pytest.approx(0.7)


def test_what_a_model_says_of_the_whole_counts_where_no_region_has_a_score():
    assert scores.score([{"value": {}}], own=0.3) == 0.3
    assert scores.score([], own=7) == 1
    assert scores.score([], own=None) == scores.score([], own=float("nan")) == 1
    assert scores.score(regions(0.9), own=0.3) == pytest.approx(0.9)
