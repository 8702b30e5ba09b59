"""Videos: every frame, in order, with the time at which a browser shows it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from backend.tests.images import clips
from ls_yolo.images import video
from ls_yolo.images.limits import MediaError
from ls_yolo.images.video import Video


def read(path, **more):
    with Video(path, "the video") as file:
        return [(clips.number(frame.image), frame.seconds) for frame in file.frames(**more)]


@pytest.mark.parametrize("rate", [5, 24, 30000 / 1001, 60])
def test_each_frame_comes_once_with_its_time(tmp_path, rate):
    found = read(clips.write(tmp_path / "a.mp4", 20, rate))
    assert [number for number, _ in found] == list(range(20))
    assert [seconds for _, seconds in found] == pytest.approx(
        [n / rate for n in range(20)], abs=1e-3
    )


def test_frames_of_unlike_length_have_each_their_own_time(tmp_path):
    path = clips.write(tmp_path / "a.mp4", 6)
    lengths = [0.04, 0.5, 0.013, 1.2, 0.04, 0.1]
    clips.shown_for(path, lengths)
    found = read(path)
    assert [number for number, _ in found] == list(range(6))
    assert [seconds for _, seconds in found] == pytest.approx(clips.starts(lengths))


def test_frames_without_times_are_an_error_and_no_video_of_one_frame(tmp_path):
    path = clips.write(tmp_path / "a.mp4", 6)
    clips.shown_for(path, [0] * 6)
    with pytest.raises(MediaError, match="does not say when its 6 frames are shown"):
        read(path)


def test_time_before_the_first_frame_counts(tmp_path):
    path = clips.write(tmp_path / "a.mp4", 5, 25)
    clips.late(path, 0.4)
    assert [s for _, s in read(path)] == pytest.approx([0.4 + n / 25 for n in range(5)])


def test_frames_are_upright_and_so_is_the_size(tmp_path):
    path = clips.write(tmp_path / "a.mp4", 3)
    clips.turned(path)
    with Video(path, "the video") as file:
        (first, *_) = file.frames()
        assert (file.width, file.height) == (clips.HEIGHT, clips.WIDTH)
    assert first.image.shape == (clips.WIDTH, clips.HEIGHT, 3)
    upright = cv2.rotate(clips.picture(0), cv2.ROTATE_90_CLOCKWISE)
    assert np.abs(first.image.astype(int) - upright).mean() < 10


def test_rate_and_duration_are_the_files(tmp_path):
    with Video(clips.write(tmp_path / "a.mp4", 20, 10), "the video") as file:
        assert (file.rate, file.duration) == pytest.approx((10, 2))


def test_frames_that_nobody_wants_are_passed_over(tmp_path):
    found = read(clips.write(tmp_path / "a.mp4", 10, 10), wanted=lambda s: 0.25 < s < 0.55)
    assert [number for number, _ in found] == [3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [b"", b"#EXTM3U\n/etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd", b"GIF89a"],
)
def test_what_is_no_video_is_not_given_to_the_decoder(tmp_path, monkeypatch, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    monkeypatch.setattr(video.cv2, "VideoCapture", None)
    with pytest.raises(MediaError, match="not a video; expected one of MP4"):
        Video(path, "the video")


def test_a_file_that_ends_at_once_has_nothing_to_read(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(clips.write(tmp_path / "b.mp4", 3).read_bytes()[:200])
    with pytest.raises(MediaError, match="no video that can be read"):
        Video(path, "the video")


def test_a_codec_that_opens_and_gives_no_frame_is_an_error(tmp_path):
    path = clips.write(tmp_path / "a.mp4", 3)
    clips.unknown_codec(path)
    assert cv2.VideoCapture(str(path)).isOpened()
    with pytest.raises(MediaError, match=r"no frame .* codec 'AV01'.* H\.264"):
        Video(path, "the video")


def test_a_frame_of_more_pixels_than_images_may_have_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 100)
    with pytest.raises(MediaError, match="128 x 64 pixels"):
        Video(clips.write(tmp_path / "a.mp4", 1), "the video")


def test_a_file_that_is_gone_is_said_to_be(tmp_path):
    with pytest.raises(MediaError, match="cannot be read: No such file"):
        Video(tmp_path / "a.mp4", "the video")
