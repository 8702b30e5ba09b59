"""How many requests are worked for at a time, and what is answered however many they are."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.server.label_studio import CONFIG
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import base, models, openapi
from ls_yolo.serving.batcher import QueueFull
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader

AT_ONCE = {"health", "livez", "readyz", "versions", "metrics", "description", "webhook"}
AT_ONCE |= {"root", "report", "all_jobs"}


@given(st.integers(3, 40), st.lists(st.sampled_from(["take", "spare", "give back"]), max_size=100))
def test_one_thread_is_always_free_and_one_more_but_for_what_is_spared(threads, steps):
    places, running = base.RequestLimiter(threads), 0
    for step in steps:
        if step == "give back":
            if running:
                places.give_back()
                running -= 1
            continue
        free = running < threads - (1 if step == "spare" else 2)
        try:
            places.take(spare=step == "spare")
            running += 1
            assert free
        except QueueFull as error:
            assert not free
            assert str(error) == (
                f"{running} requests run already, of {threads} THREADS; try again shortly"
            )
        assert running < threads


@given(st.text(max_size=400))
def test_a_status_line_is_one_line_of_what_it_may_have(text):
    found = base.reason(text)
    assert len(found) <= base.REASON
    assert found.isascii() and (found.isprintable() or not found)


def test_a_short_error_is_in_the_status_line_as_it_is_and_a_long_one_is_cut():
    assert base.reason("found 'a',\n expected 'b'") == "found 'a', expected 'b'"
    assert base.reason("x" * 1000) == "x" * (base.REASON - 3) + "..."


@pytest.mark.parametrize("threads", [1, 2])
def test_with_hardly_a_thread_one_request_is_worked_for(threads):
    places = base.RequestLimiter(threads)
    places.take()
    with pytest.raises(QueueFull):
        places.take(spare=True)
    places.give_back()
    places.take(spare=True)


@pytest.fixture
def places():
    return base.RequestLimiter(3)


@pytest.fixture
def application(make_registry, write_weights, datasets, places):
    write_weights("p.pt", {0: "person"})
    reader = ImageReader(datasets, None, "http://ls")
    predictor = Predictor(make_registry("person: {weights: p.pt}"), reader)
    return models.build(predictor, ModelChoices(None), "", "", places)


def test_whatever_may_take_long_takes_a_place(application):
    """A new route is one or the other, by its own word."""
    found = {
        rule.endpoint.rpartition(".")[2]: openapi.operation(application, rule.endpoint)
        for rule in application.url_map.iter_rules()
        if not rule.endpoint.endswith(".static")  # Flask's own, of small files
    }
    assert {name for name, operation in found.items() if not operation.slow} == AT_ONCE
    assert {name for name, operation in found.items() if operation.slow} == {
        "setup",
        "predict",
        "reload",
        "attempt",
    }


@pytest.mark.parametrize("path", ["/setup", "/predict", "/reload", "/m/person/setup"])
def test_a_request_that_waits_has_a_place_until_it_is_done(application, places, path, monkeypatch):
    waits, go = threading.Event(), threading.Event()

    def wait(*arguments, **more):
        waits.set()
        assert go.wait(10)
        raise QueueFull("later")

    monkeypatch.setattr(Predictor, "plan", wait)
    monkeypatch.setattr("ls_yolo.serving.registry.Registry.refresh", wait)
    body = {"schema": CONFIG, "label_config": CONFIG, "tasks": []}
    post = application.test_client().post
    first = threading.Thread(target=post, args=(path,), kwargs={"json": body})
    first.start()
    assert waits.wait(10)
    assert post("/predict", json=body).status_code == 429
    answer = post("/reload")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert answer.status == f"429 {answer.json['error']}"  # which Label Studio shows
    for name in ("health", "livez", "readyz", "metrics", "versions", "m/person/health"):
        assert application.test_client().get(f"/{name}").status_code == 200
    assert post("/setup", json={"schema": ""}).status_code == 200  # the place that is spared
    go.set()
    first.join()
    assert places._running == 0
