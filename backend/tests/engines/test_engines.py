"""What the engines have in common: geometry, suppression, the choice, batches, the switch."""

from __future__ import annotations

import logging
import threading
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.engines import cpu, letterbox, load
from ls_yolo.engines.base import EngineError, Prepared
from ls_yolo.engines.batches import Halving, by_shape
from ls_yolo.engines.export import ExportError
from ls_yolo.engines.hot_swap import HotSwapEngine, Stage
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.detect import Detect
from ls_yolo.results import Boxes

SIDES = st.integers(1, 5000)
SIZES = st.integers(1, 60).map(lambda n: n * 32)
SQUARE = letterbox.fit(640, 640, 640)


def detect(output, geometry, conf, iou, end2end):
    network = Network({}, "detect", 640, 32, end2end=end2end)
    return Detect(network).result([output], geometry, conf, iou)


# The choice


@pytest.mark.parametrize(
    ("engine", "device", "gpu", "chosen"),
    [
        ("auto", "auto", True, "torch"),
        ("auto", "auto", False, "openvino"),
        ("auto", "cpu", True, "openvino"),
        ("auto", "cuda:0", True, "torch"),
        ("torch", "cpu", False, "torch"),
        ("torch", "auto", False, "torch"),
        ("openvino", "auto", True, "openvino"),
        ("openvino", "cpu", False, "openvino"),
    ],
)
def test_torch_on_a_gpu_and_openvino_on_a_cpu_unless_a_setting_says_otherwise(
    engine, device, gpu, chosen
):
    assert load.choose(engine, device, gpu) == chosen


def test_openvino_on_a_gpu_is_refused_with_the_fix():
    with pytest.raises(EngineError, match="expected ENGINE=torch, or DEVICE=cpu"):
        load.choose("openvino", "cuda:0", True)


def test_an_unknown_engine_is_named():
    with pytest.raises(EngineError, match="found 'onnx', expected auto, torch or openvino"):
        load.choose("onnx", "auto", False)


def test_int8_is_for_openvino_alone():
    assert load.choose("auto", "cpu", True, "int8") == "openvino"
    for engine, device, gpu in (("torch", "cpu", False), ("auto", "cuda:0", True),
                                ("auto", "auto", True)):  # fmt: skip
        with pytest.raises(EngineError, match="'int8', which OpenVINO computes"):
            load.choose(engine, device, gpu, "int8")


def test_a_precision_that_is_unknown_is_refused():
    with pytest.raises(EngineError, match="PRECISION: found 'f16', expected auto, f32 or int8"):
        load.choose("auto", "auto", False, "f16")


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cores_are_those_of_the_container(tmp_path, monkeypatch, files, limit):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu.available(tmp_path) == (limit or 3)


# Geometry


@given(SIDES, SIDES, SIZES)
def test_an_input_is_a_rectangle_of_whole_strides_no_larger_than_asked(width, height, imgsz):
    shape = letterbox.fit(width, height, imgsz).shape
    assert max(shape) == imgsz
    assert all(side % 32 == 0 and side >= 32 for side in shape)


@given(SIDES, SIDES, SIZES)
def test_an_image_lies_in_the_middle_and_padding_is_less_than_a_stride(width, height, imgsz):
    found = letterbox.fit(width, height, imgsz)
    for before, after in ((found.left, found.right), (found.top, found.bottom)):
        assert 0 <= after - before <= 1
        assert before + after < 32


@given(SIDES, SIDES, SIZES)
def test_a_square_input_is_square(width, height, imgsz):
    assert letterbox.fit(width, height, imgsz, square=True).shape == (imgsz, imgsz)


@pytest.mark.parametrize(
    ("width", "height", "shape", "padding"),
    [
        # What ultralytics 8.4 makes of these: height, width; left, top, right, bottom.
        (810, 1080, (640, 480), (0, 0, 0, 0)),
        (1280, 720, (384, 640), (0, 12, 0, 12)),
        (451, 300, (448, 640), (0, 11, 0, 11)),
        (600, 400, (448, 640), (0, 10, 0, 11)),
        (1, 3000, (640, 32), (15, 0, 16, 0)),
    ],
)
def test_the_geometry_is_that_of_ultralytics(width, height, shape, padding):
    found = letterbox.fit(width, height, 640)
    assert found.shape == shape
    assert (found.left, found.top, found.right, found.bottom) == padding


def test_a_size_that_is_no_whole_stride_is_rounded_up():
    assert letterbox.fit(100, 100, 161).shape == (192, 192)


@given(SIDES, SIDES, SIZES)
def test_the_edges_of_the_image_come_back_exactly(width, height, imgsz):
    found = letterbox.fit(width, height, imgsz)
    inner = [
        found.left,
        found.top,
        found.left + found.inner_width,
        found.top + found.inner_height,
    ]
    back = found.back(np.array([inner], np.float32))
    assert np.allclose(back, [[0, 0, width, height]], rtol=1e-5)


@given(SIDES, SIDES, st.lists(st.floats(-1000, 1000), min_size=4, max_size=4))
def test_no_box_leaves_the_image(width, height, edges):
    back = letterbox.fit(width, height, 640).back(np.array([edges], np.float32))
    assert (back >= 0).all()
    assert (back <= [width, height, width, height]).all()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64, 160]))
def test_pixels_are_those_of_resizing_and_padding_one_after_the_other(width, height, imgsz):
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    found = letterbox.fit(width, height, imgsz)
    size = found.inner_width, found.inner_height
    scaled = image if size == (width, height) else cv2.resize(image, size)
    wanted = cv2.copyMakeBorder(
        scaled, found.top, found.bottom, found.left, found.right,
        cv2.BORDER_CONSTANT, value=(114, 114, 114),
    )  # fmt: skip
    made = letterbox.apply(image, found)
    assert np.array_equal(made.pixels, wanted)
    assert made.pixels.flags.c_contiguous
    assert (made.width, made.height) == (width, height)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.sampled_from([32, 64, 160]),
    st.sampled_from([32, 64]),
    st.booleans(),
    st.sampled_from([1, 3]),
)
def test_what_is_prepared_fits_the_network_however_small_the_image(
    width, height, imgsz, stride, end2end, channels
):
    image = np.zeros((height, width, 3), np.uint8)
    made = letterbox.Input(imgsz, stride, channels, end2end).prepare(image)
    rows, columns, planes = made.pixels.shape
    assert planes == channels
    assert rows % stride == columns % stride == 0
    anchors = sum((rows // step) * (columns // step) for step in (8, 16, 32))
    assert not end2end or anchors >= 300 or rows == columns


def test_grey_is_made_of_colours_before_the_image_is_scaled():
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    made = letterbox.Input(64, channels=1).prepare(image)
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (64, 48))
    assert np.array_equal(made.pixels[8:56, :, 0], grey)


def test_a_smaller_copy_of_an_image_has_the_geometry_of_the_image():
    geometry = letterbox.fit(4000, 3000, 640)
    made = letterbox.apply(np.zeros((375, 500, 3), np.uint8), geometry)
    assert made.pixels.shape == (480, 640, 3)
    assert (made.width, made.height) == (4000, 3000)


# Non-maximum suppression


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def output(rows, classes=3):
    """A network's output for one image: each of ``rows`` is x, y, width, height, score, class."""
    made = np.zeros((4 + classes, len(rows)), np.float32)
    for column, (*xywh, score, kind) in enumerate(rows):
        made[:4, column] = xywh
        made[4 + kind, column] = score
    return made


ROW = st.tuples(
    st.integers(0, 60).map(lambda n: n * 8),
    st.integers(0, 60).map(lambda n: n * 8),
    st.integers(1, 20).map(lambda n: n * 8),
    st.integers(1, 20).map(lambda n: n * 8),
    st.integers(1, 1000).map(lambda n: n / 1000),
    st.integers(0, 2),
)
# The sums that decide are exact for these; 0.7 and the like may round to either side.
OVERLAPS = st.sampled_from([0.0, 0.125, 0.45, 0.7, 0.9, 1.0])


@given(st.lists(ROW, max_size=40, unique_by=lambda row: row[4]), OVERLAPS)
def test_of_two_boxes_of_a_class_that_overlap_the_better_one_stays(rows, iou):
    found = detect(output(rows), letterbox.fit(640, 640, 640), 0.25, iou, end2end=False)
    kept = []
    for x, y, width, height, score, kind in sorted(rows, key=lambda row: -row[4]):
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        if np.float32(score) > 0.25 and all(
            other[2] != kind or not overlap(box, other[0]) > iou for other in kept
        ):
            kept.append((box, score, kind))
    assert found.classes.tolist() == [kind for _, _, kind in kept]
    assert np.allclose(found.scores, [score for _, score, _ in kept])
    assert found.xyxy.tolist() == [np.clip(box, 0, 640).tolist() for box, _, _ in kept]


@given(st.lists(ROW, max_size=40), OVERLAPS, st.floats(0, 1))
def test_boxes_come_best_first_above_the_threshold_and_in_their_types(rows, iou, conf):
    found = detect(output(rows), SQUARE, conf, iou, end2end=False)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > conf).all()
    assert (found.xyxy.dtype, found.scores.dtype, found.classes.dtype) == (
        np.float32,
        np.float32,
        np.int64,
    )
    assert found.xyxy.shape == (len(found.scores), 4)


@given(st.lists(ROW, min_size=1, max_size=40), st.booleans(), st.data())
def test_a_lower_threshold_of_the_batch_shows_no_other_boxes(rows, end2end, data):
    """Whoever comes along, a box whose score equals the threshold is in no answer."""
    conf = data.draw(st.sampled_from([row[4] for row in rows]))
    made = np.array(rows, np.float32) if end2end else output(rows)
    alone, together = (detect(made, SQUARE, c, 0.7, end2end) for c in (conf, conf / 2))
    assert alone.scores.tolist() == together.above(conf).scores.tolist()
    assert alone.xyxy.tolist() == together.above(conf).xyxy.tolist()
    assert (alone.scores > np.float32(conf)).all()


def test_no_more_boxes_than_ultralytics_gives():
    grid = [(x * 8 + 4, y * 8 + 4, 8, 8, 0.5, 0) for x in range(40) for y in range(40)]
    assert len(detect(output(grid), SQUARE, 0.25, 0.7, end2end=False).scores) == 300


def test_boxes_without_an_area_or_with_a_score_that_is_no_number_do_no_harm():
    rows = [(5, 5, 0, 0, 0.9, 0), (5, 5, 0, 0, 0.8, 0), (5, 5, 4, 4, float("nan"), 0)]
    assert len(detect(output(rows), SQUARE, 0.25, 0.7, end2end=False).scores) == 2


def test_a_network_without_doubles_is_taken_at_its_word():
    rows = np.array(
        [[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 10, 0.8, 1], [1, 1, 5, 5, 0.1, 0]], np.float32
    )
    found = detect(rows, SQUARE, 0.25, 0.7, end2end=True)
    assert found.scores.tolist() == [np.float32(0.9), np.float32(0.8)]
    assert found.classes.tolist() == [1, 1]


# Batches


@given(st.lists(st.sampled_from([(640, 480), (480, 640), (640, 640), (100, 900)]), max_size=20))
def test_images_are_grouped_by_the_shape_of_their_input_and_none_is_lost(sizes):
    items = [
        letterbox.apply(np.zeros((h, w, 3), np.uint8), letterbox.fit(w, h, 64)) for w, h in sizes
    ]
    groups = by_shape(items)
    assert sorted(index for group in groups for index in group) == list(range(len(items)))
    assert all(len({items[index].geometry.shape for index in group}) == 1 for group in groups)


@given(st.integers(0, 100), st.integers(1, 64), st.integers(1, 70))
def test_a_batch_that_does_not_fit_is_halved_until_it_does(count, limit, room):
    told, sizes = [], []

    def forward(part):
        if len(part) > room:
            raise MemoryError
        sizes.append(len(part))
        return [item * 2 for item in part]

    parts = Halving(limit, MemoryError, told.append)
    assert parts.run(range(count), forward) == [item * 2 for item in range(count)]
    assert all(size <= limit for size in sizes)
    assert told == sorted(told, reverse=True)
    before = len(told)
    assert parts.run(range(count), forward) == [item * 2 for item in range(count)]
    assert len(told) == before, "what fits is remembered"


def test_one_image_that_does_not_fit_is_an_error():
    def forward(part):
        raise MemoryError("full")

    with pytest.raises(MemoryError, match="full"):
        Halving(8, MemoryError, lambda limit: None).run([1, 2, 3], forward)


# The switch from torch to OpenVINO


class Fake:
    """An engine that answers with its own number as the score."""

    task = "detect"
    slots = 1
    imgsz = 640

    def __init__(self, score, fails=False):
        self.names = {0: "person"}
        self.score = score
        self.description = f"fake {score}"
        self.fails = fails
        self.released = False

    def warm_up(self):
        if self.fails:
            raise RuntimeError("could not create a primitive")

    def prepare(self, image, imgsz, size=None):
        return Prepared(image.shape[1], image.shape[0])

    def predict(self, prepared, conf, iou):
        assert not self.released
        one = Boxes(
            np.zeros((1, 4), np.float32), np.array([self.score], np.float32), np.zeros(1, np.int64)
        )
        return [one for _ in prepared]

    def release(self):
        self.released = True


def score(engine):
    prepared = engine.prepare(np.zeros((10, 20, 3), np.uint8), None)
    (boxes,) = engine.predict([prepared], 0.5, 0.7)
    return round(float(boxes.scores[0]), 3)


def step(make, stop=lambda: None, no="no OpenVINO"):
    return Stage(make, stop, f"torch goes on, slower: {no}", no)


def test_the_first_engine_answers_until_the_second_is_made_and_is_then_released():
    made = threading.Event()
    first, second = Fake(0.1), Fake(0.2)

    def make():
        assert made.wait(10)
        return second

    engine = HotSwapEngine(first, [step(make)], "a.pt")
    assert (score(engine), engine.description) == (0.1, "fake 0.1")
    made.set()
    engine._thread.join(10)
    assert (score(engine), engine.description) == (0.2, "fake 0.2")
    assert (first.released, second.released) == (True, False)
    engine.release()
    assert second.released


@pytest.mark.parametrize("where", ["made", "warmed up"])
def test_the_first_engine_goes_on_where_the_second_fails_and_the_log_says_why_once(where, caplog):
    def make():
        if where == "made":
            raise OSError("[Errno 28] No space left on device")
        return Fake(0.2, fails=True)

    engine = HotSwapEngine(Fake(0.1), [step(make)], "a.pt")
    engine._thread.join(10)
    assert [score(engine) for _ in range(3)] == [0.1] * 3
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    reason = "No space left" if where == "made" else "could not create a primitive"
    assert record.getMessage().startswith("a.pt: torch goes on, slower")
    assert reason in record.getMessage()


def test_an_engine_released_before_the_second_is_made_keeps_neither(caplog):
    stopped = threading.Event()
    first, second = Fake(0.1), Fake(0.2)

    def make():
        assert stopped.wait(10)
        return second

    HotSwapEngine(first, [step(make, stopped.set)], "a.pt").release()
    assert (first.released, second.released) == (True, True)
    assert not caplog.records


def test_engines_take_over_one_after_the_other():
    engine = HotSwapEngine(Fake(0.1), [step(lambda: Fake(0.2)), step(lambda: Fake(0.3))], "a.pt")
    engine._thread.join(10)
    assert (score(engine), engine.description) == (0.3, "fake 0.3")


def test_where_a_later_one_cannot_be_made_the_last_goes_on_and_its_description_says_why(caplog):
    def refuse():
        raise ExportError("mAP falls by 3.0 points")

    second = Fake(0.2)
    engine = HotSwapEngine(Fake(0.1), [step(lambda: second), step(refuse, no="no int8")], "a.pt")
    engine._thread.join(10)
    assert score(engine) == 0.2
    assert engine.description == "fake 0.2; no int8: mAP falls by 3.0 points"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "no int8: mAP falls by 3.0 points" in record.getMessage()
    engine.release()
    assert second.released


def test_releasing_stops_whatever_is_being_made():
    stopped = threading.Event()

    def make():
        assert stopped.wait(10)
        raise ExportError("stopped")

    later = step(lambda: Fake(0.3))
    HotSwapEngine(Fake(0.1), [step(make, stopped.set), later], "a.pt").release()
    assert stopped.is_set()


class SideBySide(Fake):
    """An engine that has images under way; each is done when it is asked for."""

    slots = 2

    def start(self, item, alone, done):
        assert not self.released
        return item

    def ended(self, run):
        return True

    def finish(self, run, conf, iou):
        return self.predict([run], conf, iou)[0]


def test_an_engine_is_released_once_the_images_under_way_are_done_which_it_finishes_itself():
    made = threading.Event()
    first, second = SideBySide(0.1), SideBySide(0.2)

    def make():
        assert made.wait(10)
        return second

    engine = HotSwapEngine(first, [step(make)], "a.pt")
    prepared = engine.prepare(np.zeros((10, 20, 3), np.uint8), None)
    runs = [engine.start(prepared, False, None) for _ in range(2)]
    made.set()
    while engine.description != "fake 0.2":
        time.sleep(0.001)
    runs.append(engine.start(prepared, False, None))
    scores = []
    for run in runs:
        assert not first.released or len(scores) == 2
        scores.append(round(float(engine.finish(run, 0.5, 0.7).scores[0]), 3))
    assert scores == [0.1, 0.1, 0.2]
    engine._thread.join(10)
    assert first.released
    engine.release()
    assert second.released


class Lettered(Fake):
    """Deletes at release what computes, as engines do; takes only what was letterboxed."""

    def __init__(self, score):
        super().__init__(score)
        self.input = letterbox.Input(32)
        self.network = self

    def prepare(self, image, imgsz, size=None):
        return self.input.prepare(image, imgsz, size)

    def predict(self, prepared, conf, iou):
        assert all(isinstance(item, letterbox.Letterboxed) for item in prepared)
        return Fake.predict(self.network, prepared, conf, iou)

    def release(self):
        super().release()
        del self.network


def test_threads_that_prepare_and_predict_while_engines_are_swapped_meet_no_error():
    image, failures = np.zeros((1, 7, 3), np.uint8), []
    stop = threading.Event()

    def use(engine):
        try:
            while not stop.is_set():
                (found,) = engine.predict([engine.prepare(image, None)], 0.0, 0.7)
                assert len(found.scores) == 1
        except BaseException as error:
            failures.append(error)

    def stage(number):
        return step(lambda: Lettered(number / 1e6))

    engine = HotSwapEngine(Lettered(0.1), [stage(number) for number in range(2000)], "a.pt")
    threads = [threading.Thread(target=use, args=(engine,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    engine._thread.join(60)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert failures == []
    assert engine.description == f"fake {1999 / 1e6}"


def test_an_image_is_prepared_while_the_engine_that_would_do_it_is_being_released():
    first = Lettered(0.1)
    engine = HotSwapEngine(first, [step(lambda: Lettered(0.2))], "a.pt")
    engine._thread.join(10)
    assert first.released
    assert score(engine) == 0.2
