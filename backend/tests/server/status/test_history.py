"""The last hour, and its charts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo import metrics
from ls_yolo.server.status import charts, history
from ls_yolo.server.status.history import History, Point, quantile


@pytest.fixture
def model():
    yield "of-history"
    metrics.forget_model("of-history")


def test_a_point_has_what_happened_in_its_span_and_no_more(clock, model):
    metrics.IMAGES.labels(model).inc(7)  # before it began
    made = History(clock, clock)
    metrics.IMAGES.labels(model).inc(50)
    metrics.QUEUE_DEPTH.labels(model).set(9)
    made.look()
    metrics.QUEUE_DEPTH.labels(model).set(0)
    assert made.points == []
    clock.now += 10
    made.look()
    metrics.IMAGES.labels(model).inc(10)
    clock.now += 10
    made.look()
    first, second = made.points
    assert (first.images[model], first.rate, first.waiting) == (50, 5.0, 9)
    assert (second.images[model], second.rate, second.waiting) == (10, 1.0, 0)
    assert made.rates() == {model: 3.0}


def test_latency_is_that_of_predict_in_the_span(clock):
    made = History(clock, clock)
    for seconds in [0.04] * 95 + [4.0] * 5:
        metrics.REQUEST_SECONDS.labels("predict").observe(seconds)
    metrics.REQUEST_SECONDS.labels("health").observe(50)
    clock.now += 10
    made.look()
    clock.now += 10
    made.look()
    busy, idle = made.points
    assert busy.requests == 100
    assert 0.02 < busy.median <= 0.05
    assert busy.slow == pytest.approx(0.05)
    assert (idle.requests, idle.median, idle.slow) == (0, None, None)


def test_an_hour_is_kept_and_the_rate_is_of_the_last_minute(clock, model):
    made = History(clock, clock)
    for _ in range(400):
        clock.now += 10
        made.look()
    assert len(made.points) == history.POINTS
    assert made.points[-1].at - made.points[0].at == 3590
    metrics.IMAGES.labels(model).inc(60)
    clock.now += 10
    made.look()
    assert made.rates() == {model: 1.0}
    for _ in range(6):
        clock.now += 10
        made.look()
    assert made.rates() == {}


def test_it_looks_by_itself(model, monkeypatch):
    monkeypatch.setattr(history, "LOOK", 0.01)
    monkeypatch.setattr(history, "SPAN", 0.02)
    made = History()
    made.start()
    metrics.IMAGES.labels(model).inc()
    for _ in range(500):
        if any(model in point.images for point in made.points):
            return
        history.time.sleep(0.01)
    pytest.fail("no point has the image")


@given(st.lists(st.floats(0.0011, 99), min_size=1, max_size=50), st.sampled_from([0.5, 0.95]))
def test_a_quantile_lies_in_the_bucket_of_the_observation_that_it_is(values, part):
    bounds = [*metrics.SECONDS, math.inf]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    found = quantile(buckets, part)
    true = sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]
    above = next(bound for bound in bounds if bound >= true)
    below = max([bound for bound in bounds if bound < true], default=0.0)
    assert below <= found <= above


def test_a_quantile_of_nothing_is_none_and_beyond_the_last_bound_that_bound():
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.5) is None
    assert quantile({1.0: 0.0, 100.0: 0.0, math.inf: 3.0}, 0.5) == 100.0


def test_a_chart_begins_anew_after_a_gap_and_ends_now():
    now = 10_000.0
    points = [
        Point(now - 3600, 10, {"m": 100}),
        Point(now - 3590, 10, {"m": 50}),
        Point(now - 10, 10, {"m": 20}),
        Point(now, 10, {"m": 10}),
    ]
    rate, waiting, latency = charts.charts(points, now)
    assert rate.lines[0].path == "M0.0 0.0L0.0 0.0L1.0 48.0M358.0 76.8L359.0 76.8L360.0 86.4"
    assert rate.summary == "1 now, 10 at most"
    assert waiting.summary == "0 now, 0 at most"
    assert latency.summary == "nothing in the last hour"
    assert [line.path for line in latency.lines] == ["", ""]


def test_latency_has_two_lines_and_says_both():
    points = [Point(1000.0, 10, {}, 0, 9, 0.04, 1.5), Point(1010.0, 10, {}, 0, 0)]
    latency = charts.charts(points, 1010.0)[2]
    assert latency.summary == (
        "half of them: nothing now, 40 ms at most; 95 of 100: nothing now, 1.5 s at most"
    )
    assert latency.top == "2.0 s"
    assert all(line.path.startswith("M") for line in latency.lines)


def test_what_is_older_than_an_hour_is_left_out():
    (rate, _, _) = charts.charts([Point(1.0, 10, {"m": 1})], 3700.0)
    assert rate.summary == "nothing in the last hour"


@given(st.floats(1e-6, 1e9))
def test_the_top_of_a_chart_is_above_all_and_not_far(value):
    top = charts.ceiling(value)
    assert value <= top * (1 + 1e-9)
    assert top <= value * 2.5 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.012, "0.01"), (0.31, "0.3"), (3, "3"), (3.25, "3.2"), (1234, "1,234")],
)  # fmt: skip
def test_numbers_have_as_many_digits_as_matter(value, shown):
    assert charts.number(value) == shown
