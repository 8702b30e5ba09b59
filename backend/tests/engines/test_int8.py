"""int8 models: which images they are made of, and how they are judged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ls_yolo.engines import export, int8, mean_ap
from ls_yolo.engines.network import Network
from ls_yolo.results import Boxes, Classes, Keypoints, Mask, Masks, OrientedBoxes


def boxes(*rows):
    """Rows of left, top, right, bottom, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def moved(found, pixels):
    return Boxes(found.xyxy + np.float32(pixels), found.scores, found.classes)


ONE = boxes((0, 0, 100, 100, 0.9, 0))


@st.composite
def images(draw):
    """Boxes of a few images that lie apart from each other, no two with the same score."""
    sides = st.integers(20, 150)
    found, score = [], 1.0
    for _ in range(draw(st.integers(1, 4))):
        rows = []
        for n in range(draw(st.integers(0, 6))):
            score -= 0.01
            size = draw(sides), draw(sides)
            rows.append((200 * n, 0, 200 * n + size[0], size[1], score, draw(st.integers(0, 2))))
        found.append(boxes(*rows))
    return found


# Mean average precision


@given(images())
def test_a_model_agrees_with_itself(truth):
    assert mean_ap.mean_average_precision(truth, truth) == pytest.approx(1)


@given(images(), st.integers(0, 40))
def test_it_is_between_nothing_and_all_and_falls_as_boxes_move_away(truth, pixels):
    near = mean_ap.mean_average_precision(truth, [moved(b, pixels) for b in truth])
    far = mean_ap.mean_average_precision(truth, [moved(b, pixels + 10) for b in truth])
    assert 0 <= far <= near <= 1


@given(images())
def test_the_order_of_images_is_nothing(truth):
    found = [moved(b, 3) for b in truth]
    once = mean_ap.mean_average_precision(truth, found)
    assert mean_ap.mean_average_precision(truth[::-1], found[::-1]) == pytest.approx(once)


def test_nothing_found_is_nothing():
    assert mean_ap.mean_average_precision([ONE], [boxes()]) == 0


def test_a_box_counts_as_far_as_it_overlaps():
    # 100 x 100 moved by 10: 90 / 110 = 0.818, right at 7 of the 10 overlaps.
    found = boxes((10, 0, 110, 100, 0.9, 0))
    assert mean_ap.mean_average_precision([ONE], [found]) == pytest.approx(0.7)


def test_the_second_box_on_one_thing_is_wrong():
    twice = boxes((0, 0, 100, 100, 0.9, 0), (1, 0, 100, 100, 0.8, 0))
    two = boxes((0, 0, 100, 100, 0.9, 0), (300, 0, 400, 100, 0.9, 0))
    # Half of what is there is found, at full precision.
    assert mean_ap.mean_average_precision([two], [twice]) == pytest.approx(0.5, abs=0.01)


def test_what_is_ranked_above_the_truth_costs_and_what_is_below_costs_nothing():
    wrong = (300, 0, 400, 100)
    above = boxes((*wrong, 0.95, 0), (0, 0, 100, 100, 0.9, 0))
    below = boxes((0, 0, 100, 100, 0.9, 0), (*wrong, 0.1, 0))
    assert mean_ap.mean_average_precision([ONE], [above]) == pytest.approx(0.5)
    assert mean_ap.mean_average_precision([ONE], [below]) == pytest.approx(1)


def test_another_class_is_another_thing():
    other = Boxes(ONE.xyxy, ONE.scores, ONE.classes + 1)
    assert mean_ap.mean_average_precision([ONE], [other]) == 0


# Other tasks


def disc(x, radius):
    """A mask of a disc at ``x``, 100."""
    y, column = np.mgrid[:201, :401]
    return lambda: Mask(0, 0, np.hypot(column - x, y - 100) < radius)


def outlined(*places):
    rows = [(x - r, 100 - r, x + r, 100 + r, 0.9, 0) for x, r in places]
    return Masks(boxes(*rows), [disc(*place) for place in places])


def turned_by(angle):
    table = np.array([[100, 100, 160, 20, angle]], np.float32)
    return OrientedBoxes(table, np.ones(1, np.float32), np.zeros(1, np.int64))


def pointed(pixels):
    points = np.array([[[10, 10], [90, 10], [50, 90]]], np.float32) + np.float32(pixels)
    return Keypoints(ONE, points, np.ones((1, 3), np.float32))


@pytest.mark.parametrize(
    ("result", "near", "far"),
    [
        (outlined((100, 60)), outlined((100, 55)), outlined((100, 40))),
        (turned_by(0.3), turned_by(0.33), turned_by(0.6)),
        (pointed(0), pointed(6), pointed(30)),
    ],
)
def test_every_task_has_a_metric_that_falls_as_shapes_differ(result, near, far):
    reached = [mean_ap.agreement([result], [found]) for found in (result, near, far)]
    assert reached[0] == pytest.approx(1)
    assert 1 > reached[1] > reached[2] >= 0


def test_classifiers_agree_as_often_as_their_first_class_is_the_same():
    one, other = (Classes(np.array(scores, np.float32)) for scores in ([0.6, 0.4], [0.4, 0.6]))
    assert mean_ap.agreement([one] * 4, [one, one, one, other]) == 0.75
    assert int8.judge([one] * 30, [one] * 30) == 1
    with pytest.raises(int8.Refused, match=r"the top-1 falls by 100\.0 points"):
        int8.judge([one] * 30, [other] * 30)


# The judgement

MANY = [boxes(*((200 * n, 0, 200 * n + 100, 100, 0.9, 0) for n in range(30)))]


def test_a_model_that_agrees_is_taken_with_how_well_it_does():
    assert int8.judge(MANY, MANY) == pytest.approx(1)


def test_a_model_that_loses_more_than_a_point_is_refused_with_both_numbers():
    with pytest.raises(
        int8.Refused, match=r"the mAP falls by 30\.0 points .* 1 is allowed.*PRECISION=auto"
    ):
        int8.judge(MANY, [moved(b, np.array([10, 0, 10, 0])) for b in MANY])


def test_boxes_that_nobody_would_be_shown_are_no_truth():
    faint = Boxes(MANY[0].xyxy, MANY[0].scores * 0.5, MANY[0].classes)
    with pytest.raises(int8.Refused, match="finds 0 things on 1 images"):
        int8.judge([faint], [faint])


def test_too_few_boxes_say_nothing():
    with pytest.raises(int8.Refused, match=r"finds 1 things .* CALIBRATION_IMAGES"):
        int8.judge([ONE], [ONE])


# The images


def folder(tmp_path, count):
    (tmp_path / "some" / "below").mkdir(parents=True)
    for number in range(count):
        where = "some" if number % 2 else "some/below"
        (tmp_path / where / f"{number:04}.jpg").write_bytes(bytes(number % 7))
    (tmp_path / "some" / "notes.txt").write_text("no image")
    return tmp_path / "some"


def test_fewer_than_a_hundred_are_refused_with_the_fix(tmp_path):
    with pytest.raises(int8.Refused, match=r"has 99 images .* at least 100 .* CALIBRATION_IM"):
        int8.choose(folder(tmp_path, 99), lambda path: True)


def test_what_cannot_be_read_does_not_count(tmp_path):
    with pytest.raises(int8.Refused, match="has 99 images"):
        int8.choose(folder(tmp_path, 100), lambda path: path.name != "0007.jpg")


def test_a_folder_that_is_not_there_has_none(tmp_path):
    with pytest.raises(int8.Refused, match="has 0 images"):
        int8.choose(tmp_path / "nowhere", lambda path: True)


@settings(max_examples=20)
@given(count=st.integers(int8.LEAST, 3 * int8.MOST))
def test_no_image_is_both_calibrated_and_measured_on(tmp_path_factory, count):
    calibrate, measure = int8.choose(
        folder(tmp_path_factory.mktemp("pictures"), count), lambda path: True
    )
    assert not set(calibrate) & set(measure)
    assert len(set(calibrate)) + len(set(measure)) == min(count, int8.MOST)
    assert len(measure) == pytest.approx(min(count, int8.MOST) / 4, abs=1)


# The cache


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A cache with a float export, images, and how often int8 was made of them."""
    cache, tries = tmp_path / "cache", []
    monkeypatch.setattr(int8, "version", lambda name: "1")
    monkeypatch.setattr(export, "version", lambda name: "1")
    monkeypatch.setattr(int8, "_decode", lambda path: path)

    def write(folder):
        for file in export.FILES:
            (folder / file).write_text("<net/>")
        return Network({0: "a"}, "detect", 64, 32).manifest()

    def make(floats, calibrate, measure, folder):
        tries.append(len(calibrate))
        if len(tries) == 1:
            raise int8.Refused("the mean average precision falls by 3.0 points")
        return write(folder) | {"int8": 0.995}

    export.write(cache, export.key("f" * 64, None), write)
    monkeypatch.setattr(int8, "_make", make)
    return cache, folder(tmp_path, 120), tries


def test_a_refusal_is_kept_until_other_images_are_there(made):
    cache, pictures, tries = made
    for _ in range(2):
        with pytest.raises(int8.Refused, match=r"3\.0 points"):
            int8.make(cache, "f" * 64, None, pictures)
    assert tries == [90]
    (pictures / "more.jpg").write_bytes(b"")
    int8.make(cache, "f" * 64, None, pictures)
    found = export.find(cache, int8.key("f" * 64, None, pictures))
    assert found is not None
    assert found.int8 == 0.995
    assert [path.name for path in cache.iterdir() if path.name.startswith(".making")] == []


def test_what_was_made_stays_when_images_are_added(made):
    cache, pictures, tries = made
    tries.append(0)
    for name in ("a.jpg", "b.jpg"):
        int8.make(cache, "f" * 64, None, pictures)
        (pictures / name).write_bytes(b"")
    assert tries == [0, 90]


def test_without_the_float_export_there_is_nothing_to_make_it_of(made, tmp_path):
    with pytest.raises(export.ExportError, match="float export is not there"):
        int8.make(tmp_path / "empty", "f" * 64, None, made[1])


def test_a_refusal_says_why_in_a_file(made):
    cache, pictures, _ = made
    with pytest.raises(int8.Refused):
        int8.make(cache, "f" * 64, None, pictures)
    (file,) = cache.glob("*.refused")
    assert json.loads(file.read_text())["why"].endswith("3.0 points")


def test_another_folder_is_another_model(made, tmp_path):
    names = {int8.key("f" * 64, None, tmp_path / folder) for folder in ("a", "b")}
    assert len({*names, int8.key("f" * 64, 320, tmp_path / "a"), export.key("f" * 64, None)}) == 4
