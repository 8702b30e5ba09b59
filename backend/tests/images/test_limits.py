"""How much of images is in memory at a time."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ls_yolo.images import limits
from ls_yolo.images.limits import MediaError


def test_what_is_decoded_at_a_time_stays_within_the_memory():
    memory, used, most = limits.Memory(10), 0, []
    lock = threading.Lock()

    def decode(amount):
        nonlocal used
        with memory.taken(amount):
            with lock:
                used += min(amount, 10)
                most.append(used)
            time.sleep(0.002)
            with lock:
                used -= min(amount, 10)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(decode, [3, 1, 4, 99, 5, 9, 2, 6, 10, 5, 3, 5] * 10))
    assert max(most) == 10
    with memory.taken(10):
        pass  # all of it is free again


def test_a_large_image_is_not_passed_by_small_ones_for_ever():
    memory, done = limits.Memory(10), threading.Event()
    ready = threading.Event()

    def small():
        while not done.is_set():
            with memory.taken(3):
                ready.set()
                time.sleep(0.002)

    def large():
        assert ready.wait(30)
        with memory.taken(10):
            done.set()

    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(small) for _ in range(4)] + [pool.submit(large)]
        assert done.wait(30)
        for job in jobs:
            job.result()


def test_of_large_files_a_few_are_in_memory_at_a_time(monkeypatch):
    monkeypatch.setattr(limits, "LARGE", 10)
    soon = time.monotonic() + 0.2
    for _ in range(2):
        with limits.holding():
            assert limits.read_limited([b"0" * 8] * 3, 100, "a", time.monotonic() + 30) == b"0" * 24
            for _ in range(limits.LARGE_FILES - 1):
                with ThreadPoolExecutor(1) as pool, limits.holding():
                    context = contextvars.copy_context().run
                    job = pool.submit(
                        context, limits.read_limited, [b"0" * 11], 100, "b", soon + 30
                    )
                    assert len(job.result()) == 11
                    with ThreadPoolExecutor(1) as another, limits.holding():
                        context = contextvars.copy_context().run
                        assert (
                            limits.read_limited([b"0" * 10], 100, "small", soon + 30) == b"0" * 10
                        )
                        job = another.submit(
                            context, limits.read_limited, [b"0" * 11], 100, "c", soon
                        )
                        with pytest.raises(TimeoutError):
                            job.result()
        soon = time.monotonic() + 0.2


def test_a_file_that_is_gathered_is_limited_in_size_and_time():
    assert limits.read_limited([], 3, "a", time.monotonic() + 30) == b""
    assert limits.read_limited([b"ab", b"c"], 3, "a", time.monotonic() + 30) == b"abc"
    with pytest.raises(MediaError, match="a: larger than"):
        limits.read_limited([b"ab", b"cd"], 3, "a", time.monotonic() + 30)
    with pytest.raises(TimeoutError):
        limits.read_limited([b"ab", b"c"], 3, "a", time.monotonic() - 1)
