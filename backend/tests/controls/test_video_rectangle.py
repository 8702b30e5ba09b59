"""VideoRectangle: what the page then draws is what was seen, frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk._extensions.label_studio_tools.postprocessing.video import (
    extract_key_frames,
)

from backend.tests.controls.drawing import draw, faults, footage, tracks
from ls_yolo import controls
from ls_yolo.controls import video_rectangle
from ls_yolo.labelstudio.label_config import LabelConfigError

WIDTH, HEIGHT = 640, 360
LABELS = '<Labels name="label" toName="video"><Label value="Person"/><Label value="car"/></Labels>'
# As upstream's example documents it.
UPSTREAM = """<View>
    <Video name="video" value="$video"/>
    <VideoRectangle name="box" toName="video" model_tracker="botsort" model_conf="0.25" model_iou="0.7" />
    <Labels name="label" toName="video">
      <Label value="Person" background="red"/>
      <Label value="Car" background="blue"/>
    </Labels>
</View>"""  # noqa: E501


def config(attributes="", labels=LABELS):
    return (
        f'<View><Video name="video" value="$video"/>{labels}'
        f'<VideoRectangle name="box" toName="video" {attributes}/></View>'
    )


def row(at, left=10.0, top=20.0, number=1, score=0.8, index=0):
    return at, number, left, top, left + 50, top + 40, score, index


def shown(region, frame):
    """The edges that Label Studio's page draws of a region on a frame, in pixels; None: nothing."""
    sequence = region["value"]["sequence"]
    before = [key for key in sequence if key["frame"] <= frame]
    after = [key for key in sequence if key["frame"] > frame]
    if not before or not (before[-1]["enabled"] or before[-1]["frame"] == frame):
        return None
    first = before[-1]
    last = after[0] if after and first["frame"] != frame else first
    part = (frame - first["frame"]) / ((last["frame"] - first["frame"]) or 1)
    x, y, width, height = (
        first[key] + (last[key] - first[key]) * part for key in ("x", "y", "width", "height")
    )
    return np.array([x * WIDTH, y * HEIGHT, (x + width) * WIDTH, (y + height) * HEIGHT]) / 100


@st.composite
def films(draw):
    """Frames that were looked at, and where an object was seen on some of them."""
    steps = draw(st.lists(st.integers(1, 4), min_size=1, max_size=60))
    frames = np.cumsum(steps).tolist()
    seen = draw(st.lists(st.booleans(), min_size=len(frames), max_size=len(frames)).filter(any))
    moves = st.floats(-6, 6)
    place, rows = np.array([100.0, 100.0]), []
    for at, there in enumerate(seen):
        place = np.clip(place + np.array([draw(moves), draw(moves)]), 0, 300)
        if there:
            rows.append(row(at, *place.tolist()))
    return frames, rows


@given(films())
def test_the_page_draws_each_object_where_it_was_seen_to_within_a_pixel(film):
    frames, rows = film
    (region,) = draw(config(), tracks(footage(frames), *rows), WIDTH, HEIGHT)
    for at, _, *place, _, _ in rows:
        edges = shown(region, frames[at])
        assert edges is not None
        assert np.abs(edges - place).max() <= 1.001


@given(films())
def test_the_page_draws_nothing_where_nothing_was_seen_but_for_one_frame_after(film):
    frames, rows = film
    (region,) = draw(config(), tracks(footage(frames), *rows), WIDTH, HEIGHT)
    seen = {frames[at] for at, *_ in rows}
    last = {frames[at] + 1 for at, *_ in rows}
    for at, frame in enumerate(frames):
        if frame not in seen | last:
            assert shown(region, frame) is None, at


@given(films())
def test_the_frames_of_an_export_are_what_was_seen_to_within_a_pixel(film):
    frames, rows = film
    (region,) = draw(config(), tracks(footage(frames), *rows), WIDTH, HEIGHT)
    (whole,) = extract_key_frames([region])
    exported = {key["frame"]: key for key in whole["value"]["sequence"] if key["enabled"]}
    for at, _, left, top, right, bottom, _, _ in rows:
        key = exported[frames[at]]
        edges = [key["x"], key["y"], key["x"] + key["width"], key["y"] + key["height"]]
        pixels = np.array(edges) / 100 * ([WIDTH, HEIGHT] * 2)
        assert np.abs(pixels - [left, top, right, bottom]).max() <= 1.001


@given(films())
def test_label_studio_takes_what_is_made(film):
    frames, rows = film
    regions = draw(config(), tracks(footage(frames), *rows), WIDTH, HEIGHT)
    assert not faults(config(), regions)


@given(films())
def test_keyframes_are_in_order_each_frame_once_at_its_time(film):
    frames, rows = film
    (region,) = draw(config(), tracks(footage(frames, 12.5), *rows), WIDTH, HEIGHT)
    numbers = [key["frame"] for key in region["value"]["sequence"]]
    assert numbers == sorted(set(numbers))
    assert region["value"]["framesCount"] >= numbers[-1]
    for key in region["value"]["sequence"]:
        assert key["time"] == pytest.approx((key["frame"] - 1) / 12.5)


def test_a_straight_way_takes_two_keyframes():
    film = footage(list(range(1, 101)))
    rows = [row(at, left=2.0 * at) for at in range(100)]
    (region,) = draw(config(), tracks(film, *rows), WIDTH, HEIGHT)
    assert [key["frame"] for key in region["value"]["sequence"]] == [1, 100]


def test_an_object_ends_one_frame_after_its_last_sight():
    film = footage(list(range(1, 11)))
    (region,) = draw(config(), tracks(film, row(2), row(3), row(7)), WIDTH, HEIGHT)
    found = [(key["frame"], key["enabled"]) for key in region["value"]["sequence"]]
    assert found == [(3, True), (4, True), (5, False), (8, True), (9, False)]


def test_what_is_there_at_the_end_stays_to_the_end():
    film = footage([1, 2, 3], length=5)
    (region,) = draw(config(), tracks(film, row(1), row(2)), WIDTH, HEIGHT)
    assert all(key["enabled"] for key in region["value"]["sequence"])
    assert region["value"]["framesCount"] == 5


def test_one_region_an_object_with_its_label_and_highest_score():
    film = footage([1, 2])
    rows = [row(0, number=7), row(1, number=7, score=0.9), row(0, number=9, score=0.6, index=1)]
    found = draw(config(), tracks(film, *rows), WIDTH, HEIGHT)
    assert [region["value"]["labels"] for region in found] == [["Person"], ["car"]]
    assert [region["score"] for region in found] == pytest.approx([0.9, 0.6])
    assert {region["type"] for region in found} == {"videorectangle"}
    assert {region["from_name"] for region in found} == {"box"}


def test_an_object_whose_class_changes_has_the_label_that_its_scores_speak_for():
    film = footage([1, 2, 3])
    rows = [row(0, score=0.9, index=1), row(1, score=0.5), row(2, score=0.5)]
    (region,) = draw(config(), tracks(film, *rows), WIDTH, HEIGHT)
    assert region["value"]["labels"] == ["Person"]


def test_an_object_without_a_label_is_left_out():
    film = footage([1, 2])
    only = '<Labels name="label" toName="video"><Label value="car"/></Labels>'
    assert draw(config(labels=only), tracks(film, row(0), row(1)), WIDTH, HEIGHT) == []


def test_boxes_are_cut_at_the_edges_and_left_out_beyond():
    film = footage([1, 2, 3])
    rows = [row(0, left=-20.0), row(1, left=700.0), row(2, left=float("nan"))]
    (region,) = draw(config(), tracks(film, *rows), WIDTH, HEIGHT)
    assert [key["frame"] for key in region["value"]["sequence"]] == [1, 2]
    assert region["value"]["sequence"][0]["x"] == 0


@pytest.mark.parametrize(
    ("attributes", "shown_from", "followed_from"),
    [
        ("", 0.5, 0.1),
        ('model_conf="0.25"', 0.25, 0.25),
        ('model_score_threshold="0.4"', 0.4, 0.1),
        ('model_score_threshold="0.05"', 0.05, 0.05),
        ('model_score_threshold="0.4" model_conf="0.2"', 0.4, 0.2),
    ],
)
def test_thresholds_of_following_and_of_regions(attributes, shown_from, followed_from):
    (control,) = controls.drawn(config(attributes))
    assert video_rectangle.shown(control, 0.5) == shown_from
    assert video_rectangle.followed(control, 0.5) == followed_from


def test_an_object_that_was_never_sure_has_no_region():
    film = footage([1, 2])
    seen = tracks(film, row(0, score=0.3), row(1, score=0.5), row(1, number=2, score=0.51))
    found = draw(config(), seen, WIDTH, HEIGHT, lowest=0.5)
    assert [region["score"] for region in found] == pytest.approx([0.51])


@pytest.mark.parametrize("name", ["model_conf", "model_iou", "model_score_threshold"])
def test_a_threshold_that_is_none_is_refused_by_name(name):
    with pytest.raises(LabelConfigError, match=f"{name} of 'box': found '2'"):
        controls.drawn(config(f'{name}="2"'))


def test_upstreams_configuration_is_drawn_with_the_labels_beside():
    (control,) = controls.drawn(UPSTREAM)
    assert [label.value for label in control.labels] == ["Person", "Car"]
    assert controls.takes(control, "detect") and controls.takes(control, "segment")
    assert controls.takes(control, "pose") and not controls.takes(control, "classify")


def test_without_labels_beside_there_is_nothing_to_draw():
    with pytest.raises(controls.NothingToDraw, match="beside a Labels tag"):
        controls.drawn(config(labels=""))
