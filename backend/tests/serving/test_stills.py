"""Frames of a video with what is predicted on them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.images import clips
from ls_yolo.controls.clock import Clock
from ls_yolo.images.video import Video
from ls_yolo.serving import stills

RATE = 25


def key(frame, x, enabled=True):
    return {"frame": frame, "enabled": enabled, "x": x, "y": 50.0, "width": 25.0, "height": 50.0,
            "rotation": 0}  # fmt: skip


def tracked(*keys):
    return {"type": "videorectangle", "score": 0.9, "to_name": "video",
            "value": {"sequence": list(keys), "labels": ["Person"]}}  # fmt: skip


def timed(*ranges):
    spans = [{"start": start, "end": end} for start, end in ranges]
    return {"type": "timelinelabels", "score": 0.9, "to_name": "video",
            "value": {"ranges": spans, "timelinelabels": ["Ball"]}}  # fmt: skip


@given(st.lists(st.integers(1, 9999), min_size=1, unique=True).map(sorted), st.integers(1, 9))
def test_of_many_frames_some_are_taken_the_first_and_the_last_among_them(numbers, most):
    found = stills.spread(numbers, most)
    assert len(found) == len(set(found)) == min(len(numbers), most)
    assert found == sorted(found)
    assert found[0] == numbers[0]
    assert most == 1 or found[-1] == numbers[-1]


def test_between_keyframes_an_object_is_on_the_straight_line_and_then_nowhere():
    region = tracked(key(3, 10.0), key(7, 30.0), key(8, 30.0, enabled=False), key(10, 50.0))
    seen = {frame: stills.at(region, frame) for frame in range(1, 13)}
    assert [frame for frame, found in seen.items() if found] == [3, 4, 5, 6, 7, 10, 11, 12]
    assert seen[5]["value"]["x"] == 20.0
    assert seen[5]["value"]["rectanglelabels"] == ["Person"]
    assert seen[12]["value"]["x"] == 50.0


@pytest.mark.parametrize(
    "region",
    [
        tracked(key(3, 10.0), key(7, 30.0), key(8, 30.0, enabled=False), key(10, 50.0)),
        timed((2, 4), (9, 9)),
    ],
)
def test_the_frames_on_which_something_is_are_those_that_show_it(region):
    shown = {frame for frame in range(1, 13) if stills.at(region, frame)}
    assert stills.seen([region], 12) == shown


@pytest.fixture
def video(tmp_path):
    with Video(clips.write(tmp_path / "a.mp4", 40), "a") as found:
        yield found


def pictures(video, *regions):
    return [
        (name, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        for name, data in stills.pictures(video, Clock(RATE), regions, 480)
    ]


def test_the_pictures_are_of_frames_on_which_something_is_with_a_box_around_it(video):
    found = pictures(video, tracked(key(11, 25.0), key(31, 25.0), key(32, 25.0, enabled=False)))
    assert [name for name, _ in found] == ["frame 11", "frame 18", "frame 24", "frame 31"]
    for name, image in found:
        assert clips.number(image) == int(name.removeprefix("frame ")) - 1
        # The right edge of the box, at half of the width, is in the label's light colour.
        assert image[40:60, clips.WIDTH // 2].max(axis=1).min() > 200
        assert image[40:60, clips.WIDTH // 2 + 8].max() < 150


def test_where_nothing_is_the_pictures_are_spread_over_the_video(video):
    assert [name for name, _ in pictures(video)] == ["frame 1", "frame 14", "frame 27", "frame 40"]


def test_frames_that_the_file_lacks_are_those_after_them(tmp_path):
    with Video(clips.write(tmp_path / "b.mp4", 10, rate=5.0), "b") as video:
        found = pictures(video, timed((2, 3)))
    assert [name for name, _ in found] == ["frame 6"]
