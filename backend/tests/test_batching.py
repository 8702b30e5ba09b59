"""One owner a model: threads take turns."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.batching import Owner
from ls_yolo.engines import Boxes


class Slow:
    """An engine that says who was in it."""

    names = {0: "person"}  # noqa: RUF012

    def __init__(self):
        self.inside = 0
        self.most = 0
        self.released = False

    def predict(self, images, conf, iou, imgsz):
        assert not self.released
        self.inside += 1
        self.most = max(self.most, self.inside)
        time.sleep(0.002)
        self.inside -= 1
        if conf > 1:
            raise RuntimeError("out of memory")
        return list(images)

    def release(self):
        assert self.inside == 0
        self.released = True


def test_an_engine_is_never_called_by_two_threads_and_everyone_gets_their_own():
    engine = Slow()
    owner = Owner(engine)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(owner.predict, [i], 0.5, 0.7, None) for i in range(40)]
        assert [job.result() for job in jobs] == [[i] for i in range(40)]
    assert engine.most == 1


def test_a_call_that_fails_leaves_the_next_one_its_turn():
    owner = Owner(Slow())
    with pytest.raises(RuntimeError):
        owner.predict([1], 2, 0.7, None)
    assert owner.predict([1], 0.5, 0.7, None) == [1]


def test_memory_is_given_back_only_when_no_call_runs():
    engine = Slow()
    owner = Owner(engine)
    caller = threading.Thread(target=owner.predict, args=([1], 0.5, 0.7, None))
    caller.start()
    owner.release()
    caller.join()
    assert engine.released


@given(st.lists(st.floats(0, 1, width=32)), st.floats(0, 1))
def test_boxes_above_a_score_are_those_that_reach_it_in_order(scores, least):
    count = len(scores)
    boxes = Boxes(
        np.arange(count * 4, dtype=np.float32).reshape(count, 4),
        np.array(scores, np.float32),
        np.arange(count, dtype=np.int64),
    )
    kept = boxes.above(least)
    wanted = [i for i, score in enumerate(scores) if np.float32(score) >= np.float32(least)]
    assert kept.classes.tolist() == wanted
    assert kept.xyxy.shape == (len(wanted), 4)
    assert len(kept.scores) == len(wanted)
