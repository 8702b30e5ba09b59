"""Label Studio's clock: which frame it shows when, whatever the file has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.controls.clock import Clock, frame_rate
from ls_yolo.labelstudio import label_config

RATES = st.sampled_from([1, 5, 12.5, 23.976, 24, 25, 30000 / 1001, 30, 50, 60, 120])
FRAMES = st.integers(1, 100_000)


def control(attributes=""):
    (found,) = label_config.parse(
        f'<View><Video name="v" value="$video" {attributes}/>'
        '<TimelineLabels name="t" toName="v"><Label value="A"/></TimelineLabels></View>'
    )
    return found


@given(RATES, FRAMES)
def test_a_frame_is_the_one_that_is_shown_at_its_own_time(rate, frame):
    clock = Clock(rate)
    assert clock.frame(clock.seconds(frame)) == frame


@given(RATES, FRAMES)
def test_times_that_a_file_rounds_to_milliseconds_mean_the_same_frame(rate, frame):
    clock = Clock(rate)
    assert clock.frame(round(clock.seconds(frame), 3)) == frame


@given(RATES, FRAMES, st.floats(0, 0.9))
def test_a_frame_is_shown_until_the_next(rate, frame, part):
    clock = Clock(rate)
    assert clock.frame(clock.seconds(frame) + part / rate) == frame


def test_the_first_frame_is_number_1():
    assert Clock(24).frame(0) == 1
    assert Clock(24).seconds(1) == 0


@pytest.mark.parametrize(
    ("attributes", "rate"),
    [
        ("", 24),
        ('frameRate="25.0"', 25),
        ('framerate="$fps"', 30),
        ('frameRate="$text"', 12.5),
        ('frameRate="0.04"', 25),
        ('frameRate="$nothing"', 24),
        ('frameRate="0"', 24),
        ('frameRate="-5"', 24),
        ('frameRate="fast"', 24),
        ('frameRate="inf"', 24),
    ],
)
def test_the_rate_is_what_the_page_takes_it_for(attributes, rate):
    data = {"video": "v.mp4", "fps": 30, "text": "12.5"}
    assert frame_rate(control(attributes), data) == pytest.approx(rate)
