"""Videos: frames through a model, objects followed, and no more time than there is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from backend.tests.images import clips
from ls_yolo.controls.clock import Clock
from ls_yolo.images.video import Video
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.results import Boxes, Classes
from ls_yolo.serving import tracking, video
from ls_yolo.serving.batcher import Batcher, BatchOptions
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.tracking import Sights

CONFIG = """<View>
  <Video name="video" value="$video" frameRate="{rate}"/>
  <VideoRectangle name="box" toName="video" model_tracker="bytetrack" {attributes}/>
  <Labels name="label" toName="video"><Label value="person"/><Label value="car"/></Labels>
</View>"""


class Counting:
    """An engine that finds a box in each frame, as many pixels from the left as its number."""

    task = "detect"
    imgsz = 640
    slots = 1
    description = "counting"

    def __init__(self, seconds=0.0):
        self.names = {0: "person"}
        self.seconds = seconds
        self.frames: list[int] = []
        self.most = 0

    def prepare(self, image, imgsz, size=None):
        return clips.number(image)

    def predict(self, prepared, conf, iou):
        time.sleep(self.seconds * len(prepared))
        self.frames += prepared
        self.most = max(self.most, len(prepared))
        return [
            Boxes(np.float32([[number, 10, number + 20, 40]]), np.float32([0.9]), np.zeros(1, int))
            for number in prepared
        ]

    def release(self):
        pass


class Judge(Counting):
    """An engine that is sure of class 0 in even frames, and of class 1 in others."""

    task = "classify"

    def predict(self, prepared, conf, iou):
        return [Classes(np.float32([n % 2 == 0, n % 2 == 1])) for n in prepared]


class Single:
    """A tracker for one object. ``images`` are those that came with its boxes."""

    def __init__(self):
        self.images: list[int] = []

    def update(self, boxes, image):
        self.images.append(clips.number(image))
        return Sights(np.ones(len(boxes.scores), np.int64), boxes)


class Entry:
    def __init__(self, version):
        self.version, self.imgsz, self.iou = version, None, 0.7


class Loaded:
    def __init__(self, engine, version="m@1"):
        self.entry = Entry(version)
        self.batcher = Batcher(engine, BatchOptions(batch_size=4))
        self.version = version


@pytest.fixture
def clip(tmp_path):
    return clips.write(tmp_path / "a.mp4", 40, 20)


def watch(path, *runs, rate=20.0, budget=None, wait=lambda future: future.result(10)):
    with Video(path, "the video") as file:
        return video.watch(file, "the video", Clock(rate), runs, budget or video.Budget(), wait)


def follow(model, tracker=None, conf=0.1):
    return video.Run(model, conf, 0.7, video.Tracking(tracker or Single()))


def test_every_frame_goes_through_the_model_and_the_tracker_in_order(clip):
    engine, tracker = Counting(), Single()
    (found,) = watch(clip, follow(Loaded(engine), tracker))
    assert engine.frames == tracker.images == list(range(40))
    assert found.footage.frames.tolist() == list(range(1, 41))
    assert (found.footage.length, found.footage.duration) == (40, pytest.approx(2))
    assert found.xyxy[:, 0].tolist() == list(range(40))
    assert found.at.tolist() == list(range(40))


def test_several_frames_are_on_their_way_at_a_time(clip):
    engine = Counting(0.005)
    watch(clip, follow(Loaded(engine)))
    assert engine.most > 1


def test_of_frames_that_are_shown_as_one_the_first_is_looked_at(clip):
    engine = Counting()
    (found,) = watch(clip, follow(Loaded(engine)), rate=5)
    assert engine.frames == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert found.footage.frames.tolist() == list(range(1, 11))
    assert found.footage.length == 10


def test_a_faster_tag_has_numbers_between_those_of_the_file(clip):
    (found,) = watch(clip, follow(Loaded(Counting())), rate=40)
    assert found.footage.frames.tolist() == list(range(1, 80, 2))
    assert found.footage.length == 80


def test_one_model_sees_each_frame_once_for_all_that_have_it(clip):
    engine = Counting()
    model = Loaded(engine)
    low, high = watch(clip, follow(model), follow(model, conf=0.95))
    assert engine.frames == list(range(40))
    assert (len(low.ids), len(high.ids)) == (40, 0)


def test_two_models_see_the_same_frames(clip):
    first, second = Counting(), Judge()
    judging = video.Run(Loaded(second, "c@1"), 0, 0.7, video.Judging([1]))
    tracks, moments = watch(clip, follow(Loaded(first)), judging)
    assert len(tracks.ids) == len(moments.scores) == 40
    assert moments.classes.tolist() == [1]
    assert moments.scores[:4, 0].tolist() == [0, 1, 0, 1]


def test_nothing_found_is_no_objects_and_no_error(clip):
    (found,) = watch(clip, follow(Loaded(Counting()), conf=0.99))
    assert len(found.ids) == len(found.xyxy) == len(found.scores) == 0


def test_what_is_on_its_way_when_the_work_ends_is_taken_back(clip):
    engine = Counting(0.01)

    def gone(future):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        watch(clip, follow(Loaded(engine)), wait=gone)
    time.sleep(0.2)
    assert len(engine.frames) <= 8  # a batch may have begun


def test_a_fault_of_the_model_is_that_of_the_video(clip):
    class Broken(Counting):
        def predict(self, prepared, conf, iou):
            raise RuntimeError("CUDA error")

    with pytest.raises(RuntimeError, match="CUDA"):
        watch(clip, follow(Loaded(Broken())))


def test_large_frames_wait_in_smaller_numbers():
    batcher = Batcher(Counting(), BatchOptions(batch_size=8))
    assert video.places(batcher) == 16
    assert video.places(batcher, 3840, 2160) == 5
    assert video.places(batcher, 20_000, 8_000) == 1


def test_a_video_that_cannot_be_done_in_time_is_given_up_early_and_says_why(clip, monkeypatch):
    monkeypatch.setattr(video, "LOOK", 0.2)
    monkeypatch.setattr(video, "LOOK_FRAMES", 4)
    engine, began = Counting(0.05), time.monotonic()
    with pytest.raises(video.TooLong) as error:
        watch(clip, follow(Loaded(engine)), budget=video.Budget(1.0))
    assert time.monotonic() - began < 1
    text = str(error.value)
    assert "frames a second" in text and "of the 1 s" in text
    assert "lower frameRate" in text and "parts of" in text


def test_slow_first_frames_do_not_count_for_all(clip, monkeypatch):
    class Slow(Counting):
        def predict(self, prepared, conf, iou):
            time.sleep(0 if self.frames else 0.3)
            return super().predict(prepared, conf, iou)

    monkeypatch.setattr(video, "LOOK", 0.2)
    (found,) = watch(clip, follow(Loaded(Slow())), budget=video.Budget(2.0))
    assert len(found.footage.frames) == 40


def test_a_video_ends_with_its_time_whatever_was_foreseen(clip):
    with pytest.raises(video.TooLong):
        watch(clip, follow(Loaded(Counting(0.02))), budget=video.Budget(0.3))


def test_where_nobody_waits_there_is_no_end(clip, monkeypatch):
    monkeypatch.setattr(video, "LOOK", 0)
    watch(clip, follow(Loaded(Counting(0.005))), budget=video.Budget(float("inf")))


# Tasks


@pytest.fixture
def make(make_registry, write_weights, datasets, monkeypatch, tmp_path):
    """A predictor whose model finds a person (0.9) at the same place of every frame."""
    trackers = tmp_path / "trackers"
    trackers.mkdir()
    (trackers / "bytetrack.yaml").write_text("tracker_type: bytetrack\ntrack_buffer: 30\n")
    monkeypatch.setattr(tracking, "built_in", lambda: trackers)
    monkeypatch.setattr(tracking, "make", lambda _: Single())
    clips.write(Path(datasets) / "a.mp4", 20, 24)

    def make(studio=None, **more):
        write_weights("a.pt", {0: "person", 1: "car"}, boxes=[[10, 10, 50, 50, 0.9, 0]])
        models = make_registry("a: {weights: a.pt}")
        return Predictor(models, ImageReader(datasets, studio, "http://ls:8080"), **more)

    return make


LOCAL = {"id": 1, "data": {"video": "/data/local-files/?d=a.mp4", "fps": 12}}


def predict(predictor, *tasks, rate="24", attributes=""):
    plan = predictor.plan(CONFIG.format(rate=rate, attributes=attributes), (), ())
    return predictor.predict(tasks, plan)


def test_a_task_with_a_video_has_a_region_for_each_object(make):
    (answer,) = predict(make(), LOCAL)
    (region,) = answer["result"]
    assert region["value"]["labels"] == ["person"]
    assert [key["frame"] for key in region["value"]["sequence"]] == [1, 20]
    assert region["value"]["framesCount"] == 20
    assert answer["score"] == pytest.approx(0.9)
    assert "error" not in answer


def test_the_frame_rate_may_be_the_tasks_own_and_is_warned_of_once_where_it_differs(make, caplog):
    (answer,) = predict(make(), LOCAL, rate="$fps")
    assert answer["result"][0]["value"]["framesCount"] == 10
    (line,) = [r.getMessage() for r in caplog.records if "Video tag" in r.getMessage()]
    assert "24 frames a second, its Video tag 12" in line and 'frameRate="24"' in line


def test_a_file_of_label_studio_is_gone_when_the_task_is_done(
    make, datasets, tmp_path, monkeypatch
):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    content = (Path(datasets) / "a.mp4").read_bytes()
    there = []

    class Studio:
        def fetch(self, path, limit, query=""):
            assert path == "/data/upload/1/a.mp4"
            return content

    class Seen(Single):
        def update(self, boxes, image):
            there[:] = list(folder.iterdir())
            return super().update(boxes, image)

    predictor = make(Studio())
    monkeypatch.setattr(tracking, "make", lambda _: Seen())
    (answer,) = predict(predictor, {"id": 1, "data": {"video": "/data/upload/1/a.mp4"}})
    assert answer["result"]
    assert len(there) == 1 and not list(folder.iterdir())


def test_a_video_that_takes_too_long_is_the_error_of_its_task_alone(make):
    first, second = predict(make(video_seconds=0.0), LOCAL, {"id": 2, "data": {}})
    assert first["score"] is None and "was not begun" in first["error"]
    assert "expected the URL of a video" in second["error"]


def test_what_is_no_video_is_the_error_of_its_task(make, datasets):
    (Path(datasets) / "b.mp4").write_text("#EXTM3U")
    wrong = {"id": 2, "data": {"video": "/data/local-files/?d=b.mp4"}}
    outside = {"id": 3, "data": {"video": "/data/local-files/?d=../b.mp4"}}
    good, *bad = predict(make(), LOCAL, wrong, outside)
    assert good["result"]
    assert "not a video" in bad[0]["error"] and "outside" in bad[1]["error"]


def test_a_wrong_parameter_of_the_tracker_is_said_when_the_project_is_set_up(make):
    config = CONFIG.format(rate=24, attributes='bytetrack_buffer="3"')
    with pytest.raises(LabelConfigError, match="the tracker has no 'buffer'"):
        make().plan(config, (), ())


def test_thresholds_of_the_control_reach_the_engine(make, engine_calls):
    predict(make(), LOCAL, attributes='model_conf="0.3" model_iou="0.6"')
    called = {(call["conf"], call["iou"]) for call in engine_calls if "conf" in call}
    assert called == {(0.3, 0.6)}


def test_all_of_it_is_json(make):
    assert json.loads(json.dumps(predict(make(), LOCAL)))
