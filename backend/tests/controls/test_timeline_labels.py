"""TimelineLabels: from when to when something is to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.controls.drawing import draw, faults
from ls_yolo import controls
from ls_yolo.controls.clock import Clock, Footage, Moments

NAMES = {0: "soccer_ball", 1: "tennis_ball", 2: "hamster"}
# As upstream's example documents it, with a second class for a label.
CONFIG = """<View>
  <Video name="video" value="$video"/>
  <TimelineLabels
          name="label" toName="video"
          model_trainable="false" model_score_threshold="0.25">
    <Label value="Ball" predicted_values="soccer_ball,tennis_ball" />
    <Label value="hamster" />
  </TimelineLabels>
</View>"""


def moments(rows, frames=None, length=None):
    """``rows``: of each frame the score of each class."""
    numbers = np.array(frames or range(1, len(rows) + 1), np.int64)
    film = Footage(Clock(), numbers, length or int(numbers[-1]), 1.0)
    return Moments(film, np.array([0, 1, 2]), np.array(rows, np.float32).reshape(-1, 3))


def ranges(regions, label):
    return [
        (region["value"]["ranges"][0]["start"], region["value"]["ranges"][0]["end"])
        for region in regions
        if region["value"]["timelinelabels"] == [label]
    ]


def drawn(found, lowest=0.25):
    return draw(CONFIG, found, 100, 50, names=NAMES, lowest=lowest)


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.3, 1.0])] * 3), min_size=1, max_size=30))
def test_ranges_are_the_frames_above_the_threshold_and_no_others(rows):
    found = drawn(moments(rows))
    for label, above in (
        ("Ball", [max(row[:2]) > 0.25 for row in rows]),
        ("hamster", [row[2] > 0.25 for row in rows]),
    ):
        covered = [n for start, end in ranges(found, label) for n in range(start, end + 1)]
        assert covered == [n for n, yes in enumerate(above, 1) if yes]
    assert all(len(region["value"]["ranges"]) == 1 for region in found)
    assert not faults(CONFIG, found)


def test_ranges_of_a_label_do_not_touch():
    found = ranges(drawn(moments([(0.9, 0, 0), (0, 0.9, 0), (0, 0, 0), (0.9, 0, 0)])), "Ball")
    assert found == [(1, 2), (4, 4)]


def test_a_frame_counts_until_the_next_and_the_last_until_the_end():
    rows = [(0.9, 0, 0), (0, 0, 0), (0.9, 0, 0)]
    assert ranges(drawn(moments(rows, frames=[1, 4, 9], length=12)), "Ball") == [(1, 3), (9, 12)]


def test_the_score_is_the_mean_of_the_frames():
    (region,) = drawn(moments([(0.4, 0, 0), (0.1, 0.8, 0)]))
    assert region["score"] == pytest.approx(0.6)
    assert region["type"] == "timelinelabels"
    assert (region["from_name"], region["to_name"]) == ("label", "video")


def test_models_that_classify_are_taken_and_no_others():
    (control,) = controls.drawn(CONFIG)
    assert controls.takes(control, "classify")
    assert not controls.takes(control, "detect")


def test_what_is_to_be_trained_is_not_drawn_from_classes():
    with pytest.raises(controls.NothingToDraw):
        controls.drawn(CONFIG.replace('"false"', '"true"'))
