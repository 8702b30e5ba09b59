"""What a SAM has made of the last images: bounded, and made once."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.serving.reloading import until
from ls_yolo.serving import embeddings
from ls_yolo.serving.batcher import QueueFull
from ls_yolo.serving.embeddings import Embeddings


@pytest.fixture
def make():
    """``make(...)`` makes an `Embeddings`; all end with the test."""
    made = []

    def make(*arguments):
        made.append(Embeddings(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.close(10)


@pytest.fixture
def slow():
    """What holds the thread up: ``slow.inside`` says that it has begun, ``slow.go`` ends it."""

    class Slow:
        inside, go = threading.Event(), threading.Event()

        def __call__(self):
            self.inside.set()
            assert self.go.wait(10)
            return "slow"

    found = Slow()
    yield found
    found.go.set()


def ask(kept, key, value):
    with kept.awaited(key, lambda: value) as future:
        return future.result(10)


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30),
)
def test_never_more_are_kept_than_may_be_and_those_used_last_are(most, steps):
    kept: Embeddings[int] = Embeddings(most)
    recent: list[int] = []
    try:
        for key, only_look in steps:
            value = kept.get(key) if only_look else ask(kept, key, key * 7)
            assert value == (key * 7 if not only_look or key in recent else None)
            if value is not None and (only_look or key not in recent):
                recent = [other for other in recent if other != key] + [key]
            recent = recent[-most:]
            assert list(kept._values) == recent
    finally:
        kept.close(10)


@given(st.integers(2, 8))
def test_requests_at_the_same_time_have_it_made_once(requests):
    kept: Embeddings[object] = Embeddings()
    calls, start, go = [], threading.Barrier(requests + 1), threading.Event()

    def once():
        calls.append(1)
        assert go.wait(10)
        return object()

    def ask():
        start.wait(10)
        with kept.awaited("image", once) as future:
            return future.result(10)

    with ThreadPoolExecutor(requests) as pool:
        found = [pool.submit(ask) for _ in range(requests)]
        kept.start("image", once)
        start.wait(10)
        go.set()
        assert len({id(future.result(10)) for future in found}) == 1
    assert len(calls) == 1
    kept.start("image", once)
    kept.close(10)
    assert len(calls) == 1


def test_what_a_request_waits_for_is_made_before_what_nobody_waits_for(make, slow):
    kept, order = make(), []
    kept.start("slow", slow)
    assert slow.inside.wait(10)
    for name in ("first", "last"):
        kept.start(name, lambda name=name: order.append(name) or name)
    with kept.awaited("wanted", lambda: order.append("wanted")) as future:
        slow.go.set()
        future.result(10)
    until(lambda: kept.get("first"))
    # Of the others, what was asked for last is the image that is looked at.
    assert order == ["wanted", "last", "first"]


def test_where_too_many_wait_the_first_that_nobody_waits_for_goes(make, slow):
    kept = make(8, 2)
    kept.start("slow", slow)
    assert slow.inside.wait(10)
    for name in ("a", "b", "c"):
        kept.start(name, lambda name=name: name)
    assert list(kept._jobs) == ["b", "c"]
    with kept.awaited("b", lambda: "b") as b, kept.awaited("d", lambda: "d") as d:
        assert list(kept._jobs) == ["b", "d"]
        kept.start("e", lambda: "e")  # is not made, and nobody minds
        with pytest.raises(QueueFull, match="2 images wait for a SAM"), kept.awaited("e", slow):
            pass
        assert list(kept._jobs) == ["b", "d"]
        slow.go.set()
        assert (b.result(10), d.result(10)) == ("b", "d")


def test_what_fails_is_an_error_for_who_waits_and_is_tried_again(make):
    kept = make()

    def fails():
        raise ValueError("no image")

    with (
        kept.awaited("image", fails) as future,
        pytest.raises(ValueError, match="no image"),
    ):
        future.result(10)
    assert ask(kept, "image", 3) == 3


def test_what_was_not_used_for_long_is_not_used_again(make, monkeypatch):
    kept = make()
    assert ask(kept, "image", 1) == 1
    monkeypatch.setattr(embeddings, "KEPT_FOR", -1.0)
    assert kept.get("image") is None
    assert ask(kept, "image", 2) == 2


def test_after_the_end_nothing_is_made(make, slow):
    kept = make()
    kept.start("slow", slow)
    assert slow.inside.wait(10)
    with kept.awaited("next", lambda: 1) as future:
        closing = threading.Thread(target=kept.close)
        closing.start()
        with pytest.raises(CancelledError):
            future.result(10)
        slow.go.set()
        closing.join(10)
    kept.start("more", slow)
    with pytest.raises(QueueFull, match="stops"), kept.awaited("more", slow):
        pass
