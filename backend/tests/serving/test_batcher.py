"""One owner a model: what many threads ask for runs in batches, in one thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.tests.serving.reloading import until
from ls_yolo.engines.base import Prepared
from ls_yolo.results import Boxes
from ls_yolo.serving.batcher import Batcher, BatchOptions, QueueFull, Released


@dataclass(frozen=True)
class Numbered(Prepared):
    number: int
    fails: bool = False


def image(number, fails=False):
    return Numbered(64, 48, number, fails)


class Engine:
    """Finds two boxes of the class ``number`` in an image, with the scores 0.9 and 0.3.

    While ``go`` is cleared, it stands still inside a batch.
    """

    names = {0: "person"}  # noqa: RUF012
    slots = 1

    def __init__(self):
        self.batches = []
        self.released = False
        self.busy = threading.Lock()
        self.inside = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def prepare(self, image, imgsz, size=None):
        return image

    def predict(self, prepared, conf, iou):
        assert self.busy.acquire(blocking=False), "two threads in one engine"
        try:
            assert not self.released
            self.batches.append(([p.number for p in prepared], conf, iou))
            self.inside.set()
            assert self.go.wait(10)
            if any(p.fails for p in prepared):
                raise MemoryError("out of memory")
            return [self.boxes(p.number).above(conf) for p in prepared]
        finally:
            self.busy.release()

    @staticmethod
    def boxes(number):
        return Boxes(
            np.zeros((2, 4), np.float32),
            np.array([0.9, 0.3], np.float32),
            np.array([number, number], np.int64),
        )

    def release(self):
        assert self.busy.acquire(blocking=False), "released within a batch"
        self.released = True


class Overlapping(Engine):
    """The same, with images side by side, each computed in a thread of its own."""

    slots = 3

    def __init__(self):
        super().__init__()
        self.under_way = 0
        self.most = 0
        self.started = []
        self.silent = False

    def start(self, item, alone, done):
        assert not self.released
        with self.busy:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.started.append((item.number, alone))
        self.inside.set()

        def compute():
            assert self.go.wait(10)
            if not self.silent and not item.fails:  # as OpenVINO, which tells of no failure
                done()

        thread = threading.Thread(target=compute)
        thread.start()
        return item, thread

    def begun(self, count):
        """The images that were started, once these are ``count``."""
        until(lambda: len(self.started) == count)
        return [number for number, _ in self.started]

    def ended(self, run):
        return not run[1].is_alive()

    def finish(self, run, conf, iou):
        item, thread = run
        thread.join(10)
        with self.busy:
            self.under_way -= 1
        if item.fails:
            raise MemoryError("out of memory")
        return self.boxes(item.number).above(conf)


@contextmanager
def owned(engine=None, **options):
    engine = engine or Engine()
    batcher = Batcher(engine, BatchOptions(**options))
    try:
        yield batcher, engine
    finally:
        engine.go.set()
        batcher.release()
        assert engine.released
        assert not batcher._thread.is_alive()


@contextmanager
def standing(batcher, engine):
    """The engine is busy with an image, number -1, so that what comes now has to wait."""
    engine.go.clear()
    engine.inside.clear()
    first = batcher.submit(image(-1), 0.5, 0.7)
    assert engine.inside.wait(10)
    yield
    engine.go.set()
    assert first.result(10).classes.tolist() == [-1]


def classes(future):
    return future.result(10).classes.tolist()


# Every image is answered once, with its own boxes

requests = st.tuples(
    st.sampled_from([0.2, 0.5, 0.95]),  # conf
    st.sampled_from([0.5, 0.7]),  # iou
    st.booleans(),  # breaks the engine
    st.booleans(),  # a pause before it
)


clients_of_requests = st.lists(st.lists(requests, max_size=12), max_size=5)


def each_is_answered(batcher, clients, expected):
    """Sends what each of ``clients`` asks for, all at once, and checks each answer.

    An image's number is 100 times its client's, and its place there.

    expected: the batcher is told of each image while it is being made ready.
    """

    def client(number):
        futures = []
        for i, (conf, iou, fails, pause) in enumerate(clients[number]):
            if pause:
                time.sleep(0.0003)
            with batcher.pending() if expected else nullcontext():
                made = image(number * 100 + i, fails)
            futures.append(batcher.submit(made, conf, iou))
        return futures

    with ThreadPoolExecutor(max(1, len(clients))) as pool:
        answers = list(pool.map(client, range(len(clients))))
    for number, futures in enumerate(answers):
        for i, (future, (conf, _, fails, _)) in enumerate(
            zip(futures, clients[number], strict=True)
        ):
            if fails:
                with pytest.raises(MemoryError):
                    future.result(10)
            else:
                boxes = future.result(10)
                wanted = [score for score in (0.9, 0.3) if np.float32(score) > np.float32(conf)]
                assert boxes.scores.tolist() == pytest.approx(wanted)
                assert set(boxes.classes.tolist()) <= {number * 100 + i}


@settings(max_examples=60)
@given(clients_of_requests, st.integers(1, 9), st.booleans())
def test_whatever_the_arrivals_each_image_is_answered_once_with_its_own_boxes(
    clients, batch_size, expected
):
    with owned(batch_size=batch_size, window=0.001) as (batcher, engine):
        each_is_answered(batcher, clients, expected)
    assert all(len(numbers) <= batch_size for numbers, _, _ in engine.batches)
    for number in range(len(clients)):
        # In order, whatever the others do: what runs a second time was in a batch that failed, and
        # an unlike iou parts a batch.
        for wanted in (0.5, 0.7):
            order = [
                n
                for numbers, _, iou in engine.batches
                for n in numbers
                if n // 100 == number and iou == wanted
            ]
            assert list(dict.fromkeys(order)) == sorted(set(order))


def test_what_waits_while_the_engine_is_busy_goes_together():
    with owned(batch_size=4) as (batcher, engine):
        with standing(batcher, engine):
            futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(6)]
            assert batcher.depth == 6
        assert [classes(future) for future in futures] == [[i] for i in range(6)]
        assert [numbers for numbers, _, _ in engine.batches] == [[-1], [0, 1, 2, 3], [4, 5]]
        assert batcher.depth == 0


def test_a_lone_image_never_waits_for_others():
    with owned(window=5) as (batcher, _):
        started = time.monotonic()
        assert classes(batcher.submit(image(1), 0.5, 0.7)) == [1]
        assert time.monotonic() - started < 1


def test_an_image_waits_for_those_being_prepared_but_no_longer_than_the_window():
    with owned(window=5) as (batcher, engine):
        with batcher.pending():
            first = batcher.submit(image(1), 0.5, 0.7)
            second = batcher.submit(image(2), 0.5, 0.7)
            time.sleep(0.05)
            assert engine.batches == []
        assert (classes(first), classes(second)) == ([1], [2])
        assert [numbers for numbers, _, _ in engine.batches] == [[1, 2]]
    with owned(window=0.01) as (batcher, _), batcher.pending():
        assert classes(batcher.submit(image(1), 0.5, 0.7)) == [1]


def test_a_full_batch_waits_for_nothing():
    with owned(window=5, batch_size=2) as (batcher, _), batcher.pending():
        started = time.monotonic()
        futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(2)]
        assert [classes(future) for future in futures] == [[0], [1]]
        assert time.monotonic() - started < 1


def test_a_batch_runs_at_its_lowest_threshold_and_is_parted_by_iou():
    with owned() as (batcher, engine):
        with standing(batcher, engine):
            low = batcher.submit(image(1), 0.2, 0.7)
            high = batcher.submit(image(2), 0.95, 0.7)
            other = batcher.submit(image(3), 0.5, 0.4)
        assert (classes(low), classes(high), classes(other)) == ([1, 1], [], [3])
        assert sorted(engine.batches[1:]) == [([1, 2], 0.2, 0.7), ([3], 0.5, 0.4)]


# Faults


def test_what_is_urgent_goes_before_all_that_waits_even_where_the_queue_is_full():
    with owned(batch_size=4, queue_size=6) as (batcher, engine):
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(6)]
            with pytest.raises(QueueFull):
                batcher.submit(image(7), 0.5, 0.7)
            clicked = batcher.submit(image(9), 0.5, 0.7, urgent=True)
        assert classes(clicked) == [9]
        assert [classes(future) for future in waiting] == [[i] for i in range(6)]
        assert engine.batches[1][0] == [9, 0]


def test_while_people_click_batches_are_small_and_large_again_after_a_while(monkeypatch):
    with owned(batch_size=4) as (batcher, engine):
        assert classes(batcher.submit(image(9), 0.5, 0.7, urgent=True)) == [9]
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(4)]
        assert [classes(future) for future in waiting] == [[i] for i in range(4)]
        assert [numbers for numbers, _, _ in engine.batches[2:]] == [[0, 1], [2, 3]]
        monkeypatch.setattr("ls_yolo.serving.batcher.URGENT_FOR", 0)
        engine.batches.clear()
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(4)]
        assert [classes(future) for future in waiting] == [[i] for i in range(4)]
        assert engine.batches[1][0] == [0, 1, 2, 3]


def test_an_image_that_breaks_the_engine_spoils_no_other():
    with owned() as (batcher, engine):
        with standing(batcher, engine):
            futures = [batcher.submit(image(i, fails=i == 1), 0.5, 0.7) for i in range(3)]
        assert (classes(futures[0]), classes(futures[2])) == ([0], [2])
        with pytest.raises(MemoryError):
            futures[1].result(10)
        assert classes(batcher.submit(image(4), 0.5, 0.7)) == [4]


def test_an_engine_that_forgets_an_image_is_an_error_and_not_a_mix_up():
    with owned() as (batcher, engine):
        engine.predict = lambda prepared, conf, iou: []
        with pytest.raises(RuntimeError, match="0 answers to 1 images"):
            batcher.submit(image(1), 0.5, 0.7).result(10)


def test_what_nobody_waits_for_is_not_run():
    with owned() as (batcher, engine):
        with standing(batcher, engine):
            futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(3)]
            assert futures[1].cancel()
        assert (classes(futures[0]), classes(futures[2])) == ([0], [2])
        assert [numbers for numbers, _, _ in engine.batches] == [[-1], [0, 2]]
        with pytest.raises(CancelledError):
            futures[1].result(10)


def test_a_full_queue_refuses_at_once_and_what_was_given_up_takes_no_place():
    with owned(queue_size=2) as (batcher, engine), standing(batcher, engine):
        futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(2)]
        with pytest.raises(QueueFull, match=r"2 images wait .* try again"):
            batcher.submit(image(2), 0.5, 0.7)
        futures[0].cancel()
        batcher.submit(image(3), 0.5, 0.7)


def test_places_that_are_held_are_refused_to_others_until_they_are_free():
    with owned(queue_size=5) as (batcher, _):
        with batcher.reserve(3), batcher.reserve(2):
            with pytest.raises(QueueFull), batcher.reserve(1):
                pass
            with batcher.reserve():
                pass
        with batcher.reserve(5):
            pass


# Engines that compute images side by side


@settings(max_examples=60)
@given(clients_of_requests, st.booleans())
def test_side_by_side_each_image_is_answered_once_with_its_own_boxes(clients, expected):
    silent = mock.patch("ls_yolo.serving.batcher.SILENT", 0.01)
    with silent, owned(Overlapping(), window=0.001) as (batcher, engine):
        each_is_answered(batcher, clients, expected)
    assert engine.most <= engine.slots
    for number in range(len(clients)):
        order = [n for n, _ in engine.started if n // 100 == number]
        assert order == sorted(order)


def test_the_next_image_begins_as_one_is_done_and_waits_for_no_other():
    """What stands still holds up nobody but itself."""

    class Slow(Overlapping):
        def start(self, item, alone, done):
            if item.number != -1:
                return super().start(item, alone, done)
            thread = threading.Thread(target=lambda: (self.hold.wait(10), done()))
            thread.start()
            return item, thread

    slow = Slow()
    slow.hold = threading.Event()
    with owned(slow) as (batcher, engine):
        held = batcher.submit(image(-1), 0.5, 0.7)
        others = [batcher.submit(image(i), 0.5, 0.7) for i in range(9)]
        assert [classes(future) for future in others] == [[i] for i in range(9)]
        assert not held.done()
        engine.hold.set()
        assert classes(held) == [-1]


def test_only_an_image_that_is_by_itself_is_said_to_be():
    with owned(Overlapping()) as (batcher, engine):
        assert classes(batcher.submit(image(0), 0.5, 0.7)) == [0]
        with standing(batcher, engine):
            others = [batcher.submit(image(i), 0.5, 0.7) for i in range(1, 6)]
        assert [classes(future) for future in others] == [[i] for i in range(1, 6)]
        assert engine.started[:2] == [(0, True), (-1, True)]
        assert not any(alone for number, alone in engine.started[2:5])


def test_what_is_urgent_begins_next_and_few_are_under_way_then():
    with owned(Overlapping()) as (batcher, engine):
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(6)]
            clicked = batcher.submit(image(9), 0.5, 0.7, urgent=True)
        assert classes(clicked) == [9]
        assert [classes(future) for future in waiting] == [[i] for i in range(6)]
        numbers = [number for number, _ in engine.started]
        # Two of those before it could begin while there was no click yet.
        assert numbers.index(9) <= 3
        engine.most = 0
        waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(8)]
        assert [classes(future) for future in waiting] == [[i] for i in range(8)]
        assert engine.most <= 2


def test_a_failure_that_nobody_tells_is_found_while_others_go_on(monkeypatch):
    monkeypatch.setattr("ls_yolo.serving.batcher.SILENT", 60)
    with owned(Overlapping()) as (batcher, engine):
        with standing(batcher, engine):
            bad = batcher.submit(image(0, fails=True), 0.5, 0.7)
            others = [batcher.submit(image(i), 0.5, 0.7) for i in range(1, 9)]
        assert [classes(future) for future in others] == [[i] for i in range(1, 9)]
        with pytest.raises(MemoryError):
            bad.result(1)


def test_where_few_at_a_time_are_wanted_each_is_computed_by_all_cores():
    with owned(Overlapping(), batch_size=1) as (batcher, engine):
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(3)]
        assert [classes(future) for future in waiting] == [[i] for i in range(3)]
        assert all(alone for _, alone in engine.started)
        assert engine.most == 1


def test_a_click_begins_where_a_core_is_free_and_waits_for_no_other_image():
    engine = Overlapping()
    engine.slots = 5  # four cores, and one that is ready
    with owned(engine) as (batcher, _):
        assert classes(batcher.submit(image(8), 0.5, 0.7, urgent=True)) == [8]
        with standing(batcher, engine):
            waiting = [batcher.submit(image(i), 0.5, 0.7) for i in range(3)]
            # What is not urgent leaves the other cores to the next click.
            assert engine.begun(3) == [8, -1, 0]
            clicked = batcher.submit(image(9), 0.5, 0.7, urgent=True)
            assert engine.begun(4) == [8, -1, 0, 9]
        assert classes(clicked) == [9]
        assert [classes(future) for future in waiting] == [[i] for i in range(3)]


def test_a_batch_that_was_taken_for_another_engine_is_predicted_as_a_batch():
    """An engine that takes images one by one may take over while a batch is put together."""

    engine = Overlapping()
    engine.slots = 1
    with owned(engine) as (batcher, _):
        take = batcher._take

        def take_and_swap():
            batch = take()
            engine.slots = Overlapping.slots
            return batch

        with standing(batcher, engine):
            batcher._take = take_and_swap
            futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(8)]
        assert [classes(future) for future in futures] == [[i] for i in range(8)]
        assert not engine.started
        assert classes(batcher.submit(image(8), 0.5, 0.7)) == [8]
        assert engine.started


def test_an_engine_that_does_not_tell_is_asked(monkeypatch):
    monkeypatch.setattr("ls_yolo.serving.batcher.SILENT", 0.01)
    with owned(Overlapping()) as (batcher, engine):
        engine.silent = True
        assert classes(batcher.submit(image(3), 0.5, 0.7)) == [3]


def test_an_engine_may_tell_after_it_was_asked(monkeypatch):
    monkeypatch.setattr("ls_yolo.serving.batcher.SILENT", 0.01)
    with owned(Overlapping()) as (batcher, engine):
        engine.go.clear()
        futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(7)]
        time.sleep(0.05)
        engine.go.set()
        assert [classes(future) for future in futures] == [[i] for i in range(7)]
    assert engine.most <= engine.slots


def test_side_by_side_release_answers_what_waits():
    with owned(Overlapping()) as (batcher, engine):
        engine.go.clear()
        futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(8)]
        closing = threading.Thread(target=batcher.release)
        closing.start()
        engine.go.set()
        closing.join(10)
        assert engine.released
        assert [classes(future) for future in futures] == [[i] for i in range(8)]


# The end


def test_release_answers_what_waits_and_then_takes_no_more():
    with owned(batch_size=2) as (batcher, engine):
        engine.go.clear()
        futures = [batcher.submit(image(i), 0.5, 0.7) for i in range(5)]
        closing = threading.Thread(target=batcher.release)
        closing.start()
        engine.go.set()
        closing.join(10)
        assert engine.released
        assert [classes(future) for future in futures] == [[i] for i in range(5)]
        with pytest.raises(Released):
            batcher.submit(image(6), 0.5, 0.7)
        with pytest.raises(Released), batcher.reserve():
            pass


def test_release_waits_for_those_who_hold_and_refuses_new_ones():
    with owned() as (batcher, engine):
        with batcher.reserve(1):
            closing = threading.Thread(target=batcher.release)
            closing.start()
            while not batcher._closing:
                time.sleep(0.001)
            with pytest.raises(Released), batcher.reserve():
                pass
            assert classes(batcher.submit(image(1), 0.5, 0.7)) == [1]
            assert not engine.released
        closing.join(10)
        assert engine.released


@given(st.lists(st.floats(0, 1, width=32)), st.floats(0, 1))
def test_boxes_above_a_score_are_those_that_exceed_it_in_order(scores, least):
    count = len(scores)
    boxes = Boxes(
        np.arange(count * 4, dtype=np.float32).reshape(count, 4),
        np.array(scores, np.float32),
        np.arange(count, dtype=np.int64),
    )
    kept = boxes.above(least)
    wanted = [i for i, score in enumerate(scores) if np.float32(score) > np.float32(least)]
    assert kept.classes.tolist() == wanted
    assert kept.xyxy.shape == (len(wanted), 4)
    assert len(kept.scores) == len(wanted)
