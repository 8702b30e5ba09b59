"""Tasks through threads: what fails, what is away, what ends the backend."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from ls_yolo.jobs import pipeline
from ls_yolo.jobs.pipeline import ALL_FAIL, Changed, Pipeline, Steps
from ls_yolo.jobs.predicting import Answer, Away, Busy, Lost, PredictingError
from ls_yolo.labelstudio.bulk import Task

VERSION = "m@1"


class Model:
    """Answers as a backend does: ``poison`` ends it, ``bad`` it says it cannot predict."""

    def __init__(self, poison=(), bad=(), seconds=0.0):
        self.poison, self.bad, self.seconds = set(poison), set(bad), seconds
        self.asked = Counter()
        self.together = []
        self.before = []  # errors to raise, one a request, before any is answered
        self.under_way = self.most = 0
        self.lock = threading.Lock()

    def describe(self):
        raise NotImplementedError

    def predict(self, tasks):
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.together.append((len(tasks), self.under_way))
            self.asked.update(task.id for task in tasks)
            error = self.before.pop(0) if self.before else None
        try:
            time.sleep(self.seconds)
            if error:
                raise error
            if self.poison & {task.id for task in tasks}:
                raise Lost("it went away")
            return [Answer([], VERSION, "damaged" * (task.id in self.bad)) for task in tasks]
        finally:
            with self.lock:
                self.under_way -= 1


class Sink:
    """What is stored, and what failed."""

    def __init__(self):
        self.stored, self.failed, self.calls = [], {}, []
        self.ready = 0

    def steps(self, pages, store=None):
        return Steps(pages, store or self.store, self.fail, self.wait)

    def store(self, answered):
        self.calls.append((time.monotonic(), len(answered)))
        self.stored += [task.id for task, _ in answered]

    def fail(self, task, why, lost):
        self.failed[task.id] = (why, lost)

    def wait(self):
        self.ready += 1


def tasks(count):
    return [Task(number, {}) for number in range(1, count + 1)]


def pages(count, size=50):
    every = tasks(count)
    return [every[start : start + size] for start in range(0, count, size)]


def run(model, steps, stop=None, **more):
    Pipeline(steps, model, VERSION, stop or threading.Event(), **more).run()


def test_every_task_is_asked_for_once_and_stored_once():
    model, sink = Model(), Sink()
    run(model, sink.steps(pages(1003)))
    assert sorted(sink.stored) == list(range(1, 1004))
    assert set(model.asked.values()) == {1}
    assert max(count for _, count in sink.calls) <= 500


def test_several_requests_are_under_way_at_a_time():
    model, sink = Model(seconds=0.01), Sink()
    run(model, sink.steps(pages(200)), requests=4)
    assert model.most == 4


def test_a_task_that_cannot_be_predicted_is_told_and_the_rest_is_stored():
    model, sink = Model(bad={5, 6}), Sink()
    run(model, sink.steps(pages(20)))
    assert sink.failed == {5: ("damaged", False), 6: ("damaged", False)}
    assert sorted(sink.stored) == [n for n in range(1, 21) if n not in (5, 6)]


def test_the_task_that_ends_the_backend_is_found_and_all_others_are_predicted():
    model, sink = Model(poison={13}, seconds=0.002), Sink()
    run(model, sink.steps(pages(100)))
    assert sink.failed == {13: ("it went away", True)}
    assert len(sink.stored) == len(set(sink.stored)) == 99
    # Once with seven others, twice alone; not once for each half of a batch.
    assert model.asked[13] == 3
    assert all(under_way == 1 for size, under_way in model.together if size == 1)


def test_a_backend_that_is_restarted_costs_no_task():
    model, sink = Model(), Sink()
    model.before = [Lost("gone"), Away("refused"), Away("refused"), Busy("full")]
    run(model, sink.steps(pages(64)))
    assert sink.failed == {}
    assert sorted(sink.stored) == list(range(1, 65))


def test_a_backend_that_stays_away_ends_the_run_and_what_was_predicted_is_stored():
    model, sink = Model(), Sink()

    def more():
        yield tasks(8)
        time.sleep(0.1)
        model.before = [Away("refused")] * 1000
        yield tasks(16)[8:]

    with pytest.raises(Away, match="refused"):
        run(model, sink.steps(more()), patience=0.3)
    assert sink.stored == list(range(1, 9))


def test_a_backend_that_fails_for_every_task_ends_the_run_instead_of_blaming_all():
    model, sink = Model(poison=range(1000)), Sink()
    with pytest.raises(PredictingError, match=f"{ALL_FAIL} tasks in a row.*not the tasks"):
        run(model, sink.steps(pages(500)))
    assert len(sink.failed) < 2 * ALL_FAIL


def test_another_version_ends_the_run():
    class Replaced(Model):
        def predict(self, tasks):
            return [Answer([], "m@2") for _ in tasks]

    sink = Sink()
    with pytest.raises(Changed, match="m@2 answers by now, m@1 did"):
        run(Replaced(), sink.steps(pages(50)))
    assert sink.stored == []


def test_the_first_predictions_are_stored_while_the_rest_goes_on():
    model, sink = Model(seconds=0.1), Sink()
    began = time.monotonic()
    run(model, sink.steps(pages(480)), requests=2)  # 3 s
    first, count = sink.calls[0]
    assert first - began < 2.6
    assert count < 400
    assert len(sink.stored) == 480


def test_a_store_that_fails_ends_the_run_with_its_own_error():
    def store(answered):
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        run(Model(), Sink().steps(pages(5000), store))


def test_pages_are_not_read_ahead_of_what_is_predicted():
    """Or memory would grow with the number of tasks."""
    model, sink = Model(seconds=0.02), Sink()
    read = []

    def endless():
        for number in range(200):
            read.append(number)
            yield [Task(number * 10 + n, {}) for n in range(10)]

    stop = threading.Event()

    def end():
        time.sleep(0.5)
        seen.append((len(read), sum(model.asked.values())))
        stop.set()

    seen = []
    threading.Thread(target=end).start()
    run(model, sink.steps(endless()), stop)
    ((pages_read, asked),) = seen
    assert pages_read < 200
    assert pages_read * 10 - asked <= 8 * 8 + 10 + 8 * 4


def test_a_run_that_is_stopped_ends_at_once_though_a_request_is_under_way():
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    began = time.monotonic()
    run(Model(seconds=30), Sink().steps(pages(50)), stop)
    assert time.monotonic() - began < 8


def test_what_was_predicted_is_stored_though_the_run_cannot_go_on_and_storing_is_slow(monkeypatch):
    """Label Studio takes more seconds for it than a run waits for requests under way."""
    monkeypatch.setattr(pipeline, "END_SECONDS", 0.3)
    monkeypatch.setattr(pipeline, "MOST_ROWS", 100)
    model, sink = Model(), Sink()

    def store(answered):
        time.sleep(0.5)
        sink.store(answered)

    def more():
        yield tasks(400)
        while sum(model.asked.values()) < 400:
            time.sleep(0.01)
        time.sleep(0.05)
        model.before = [PredictingError("no more")]
        yield [Task(401, {})]

    with pytest.raises(PredictingError, match="no more"):
        run(model, sink.steps(more(), store), size=4)
    assert sorted(sink.stored) == list(range(1, 401))


def test_a_store_that_hangs_does_not_hold_up_the_end_of_a_run_for_ever(monkeypatch):
    monkeypatch.setattr(pipeline, "END_SECONDS", 0.1)
    monkeypatch.setattr(pipeline, "STORE_SECONDS", 0.5)
    monkeypatch.setattr(pipeline, "FLUSH_SECONDS", 0.01)
    hangs, stop = threading.Event(), threading.Event()
    began = time.monotonic()
    threading.Timer(0.3, stop.set).start()
    steps = Sink().steps(pages(50_000, 5000), lambda answered: hangs.wait(30))
    run(Model(), steps, stop, size=250)
    hangs.set()
    assert time.monotonic() - began < 10


def test_services_that_do_not_come_back_end_the_run_and_are_no_fault_of_a_task():
    model, sink = Model(poison=range(1000)), Sink()

    def ready():
        raise Away("not ready after 180 s")

    with pytest.raises(Away, match="not ready"):
        run(model, Steps(pages(50), sink.store, sink.fail, ready))
    assert sink.failed == {}
