"""When models are loaded and unloaded: at start, on first use, by idle time and memory."""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from backend.tests.serving.reloading import POLL, loads, releases, reloads, row, settle, until
from ls_yolo.config import ConfigError
from ls_yolo.engines import load as loader
from ls_yolo.models import config as models_config
from ls_yolo.serving import loading, registry
from ls_yolo.serving.registry import ModelUnavailable


@pytest.fixture
def models(make_registry, write_weights):
    """A registry of the model ``a``, whose class is ``one``."""
    write_weights("a.pt", {0: "one"})
    return make_registry("a: {weights: a.pt}", poll=POLL)


# At start


def test_a_model_that_cannot_be_loaded_does_not_stop_the_others(
    make_registry, models_dir, write_weights
):
    write_weights("a.pt", {0: "one"})
    (models_dir / "b.pt").write_text("{")
    models = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}\nc: {weights: c.pt}", poll=POLL)
    assert models.get("a").names == {0: "one"}
    assert [row(models, name)["state"] for name in "abc"] == ["ready", "failed", "failed"]
    with pytest.raises(ModelUnavailable, match=r"b\.pt: cannot be loaded"):
        models.get("b")
    with pytest.raises(ModelUnavailable, match=r"c\.weights: 'c\.pt' is not in"):
        models.get("c")
    write_weights("b.pt", {0: "two"})
    write_weights("c.pt", {0: "three"})
    settle(models)
    assert [models.get(name).names[0] for name in "abc"] == ["one", "two", "three"]


def test_where_none_can_be_loaded_every_fault_is_said(make_registry, models_dir):
    (models_dir / "b.pt").write_text("{")
    with pytest.raises(ConfigError) as caught:
        make_registry("a: {weights: a.pt}\nb: {weights: b.pt}")
    first, second = str(caught.value).splitlines()
    assert "a.weights: 'a.pt' is not in" in first
    assert "b.pt: cannot be loaded" in second


# On first use


def test_nothing_is_loaded_before_it_is_asked_for(make_registry, write_weights, engine_calls):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", lazy=True)
    assert loads(engine_calls) == []
    assert row(models)["state"] == "unloaded"
    version = models.version("a")
    assert models.get("a").version == version
    assert row(models)["state"] == "ready"


def test_two_first_requests_load_a_model_once(make_registry, write_weights, engine_calls):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", lazy=True)
    start = threading.Barrier(8)

    def ask():
        start.wait()
        return models.get("a")

    with ThreadPoolExecutor(8) as pool:
        found = {id(future.result()) for future in [pool.submit(ask) for _ in range(8)]}
    assert len(found) == 1
    assert loads(engine_calls) == ["a.pt"]


@contextmanager
def slow_loads(monkeypatch, name):
    """Loads of the file ``name`` wait until the block is left; the event: one has begun."""
    begun, go, load = threading.Event(), threading.Event(), loader.load_engine

    def slow(weights, *more, **options):
        if weights.name == name:
            begun.set()
            assert go.wait(10)
        return load(weights, *more, **options)

    monkeypatch.setattr(loader, "load_engine", slow)
    try:
        yield begun
    finally:
        go.set()


def test_while_a_model_loads_the_others_answer(make_registry, write_weights, monkeypatch):
    write_weights("a.pt", {0: "one"})
    write_weights("b.pt", {0: "two"})
    models = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}", lazy=True)
    with ThreadPoolExecutor(1) as pool, slow_loads(monkeypatch, "a.pt") as begun:
        first = pool.submit(models.get, "a")
        assert begun.wait(10)
        assert models.get("b").names == {0: "two"}
        assert row(models, "a")["state"] == "loading"
        assert not first.done()
    assert first.result().names == {0: "one"}


def test_while_new_weights_load_the_old_model_answers(models, write_weights, monkeypatch):
    old = models.get("a")
    with slow_loads(monkeypatch, "a.pt") as begun:
        write_weights("a.pt", {0: "two"})
        models.watch()
        assert begun.wait(10)
        assert models.get("a") is old
        assert row(models)["state"] == "ready"
    until(lambda: models.get("a").names == {0: "two"})


def test_what_failed_is_not_tried_again_at_each_request_but_after_a_change(
    make_registry, models_dir, write_weights, monkeypatch
):
    weights = write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", lazy=True, poll=POLL)
    weights.write_text("{")
    tries = []
    load = loader.load_engine
    monkeypatch.setattr(loader, "load_engine", lambda *more: tries.append(more) or load(*more))
    for _ in range(3):
        with pytest.raises(ModelUnavailable, match="cannot be loaded"):
            models.get("a")
    assert len(tries) == 1
    write_weights("a.pt", {0: "two"})
    settle(models)
    assert models.get("a").names == {0: "two"}


def test_after_a_while_a_request_tries_again(make_registry, write_weights, monkeypatch):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", lazy=True)
    load = loader.load_engine
    with monkeypatch.context() as patch:
        patch.setattr(loader, "load_engine", lambda *_: 1 / 0)
        with pytest.raises(ModelUnavailable, match="a: ZeroDivisionError"):
            models.get("a")
    assert loader.load_engine is load
    monkeypatch.setattr(registry, "RETRY_SECONDS", 0.0)
    assert models.get("a").names == {0: "one"}


@pytest.fixture
def out_of_memory(monkeypatch):
    """While set, no load succeeds; each says another number of bytes."""
    full, load, free = threading.Event(), loader.load_engine, iter(range(10**6))

    def tight(*arguments):
        if full.is_set():
            raise RuntimeError(f"CUDA out of memory: {next(free)}.5 MiB is free")
        return load(*arguments)

    monkeypatch.setattr(loader, "load_engine", tight)
    return full


@pytest.mark.parametrize("asked", [True, False], ids=["by /reload", "by itself, after a while"])
def test_new_weights_that_failed_for_a_passing_reason_are_taken_without_another_change(
    models, write_weights, out_of_memory, monkeypatch, caplog, asked
):
    old, failed, ok = models.get("a"), reloads("failed"), reloads("ok")

    def again():
        if asked:
            return models.refresh(10)
        with monkeypatch.context() as patch:
            patch.setattr(registry, "RETRY_SECONDS", 0.0)
            settle(models)
        return models.status()

    write_weights("a.pt", {0: "two"})
    out_of_memory.set()
    settle(models)
    assert "CUDA out of memory: 0.5 MiB" in row(models)["error"]
    settle(models)
    assert "CUDA out of memory: 0.5 MiB" in row(models)["error"], "tried again at once"
    assert "CUDA out of memory: 1.5 MiB" in again()["models"][0]["error"]
    assert models.get("a") is old
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    out_of_memory.clear()
    assert again()["models"][0]["error"] == ""
    assert models.get("a").names == {0: "two"}
    assert (reloads("failed"), reloads("ok")) == (failed + 1, ok + 1)


def test_weights_that_could_not_be_read_for_a_while_are_taken(models, write_weights, monkeypatch):
    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    write_weights("a.pt", {0: "two"})
    with monkeypatch.context() as patch:
        patch.setattr(models_config, "hash_file", broken)
        settle(models)
    assert "Input/output error" in row(models)["error"]
    models.refresh(10)
    assert (models.get("a").names, row(models)["error"]) == ({0: "two"}, "")


# Idle time and memory


def test_a_model_that_nobody_uses_is_unloaded_and_loaded_again(
    make_registry, write_weights, engine_calls
):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", idle=0.05, poll=0)
    version = models.get("a").version
    models.watch()
    until(lambda: row(models)["state"] == "unloaded")
    until(lambda: releases(engine_calls) == ["a.pt"])
    assert models.version("a") == version
    assert models.get("a").version == version


def test_a_model_that_a_request_still_uses_is_not_unloaded(
    make_registry, write_weights, engine_calls
):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", idle=0.001)
    used = models.get("a")
    time.sleep(0.01)
    models.unload_idle()
    assert models.get("a") is used
    del used
    time.sleep(0.01)
    models.unload_idle()
    assert releases(engine_calls) == ["a.pt"]


@pytest.fixture
def three(make_registry, write_weights, monkeypatch):
    """Three models of 3 bytes each by the estimate, and room for two."""
    for name in "abc":
        write_weights(f"{name}.pt", {0: name})
    for module in (loading, registry):
        monkeypatch.setattr(module, "size", lambda entry: 3)
    text = "".join(f"{name}: {{weights: {name}.pt}}\n" for name in "abc")
    return lambda **more: make_registry(text, memory=7, poll=POLL, **more)


def states(models):
    return [row(models, name)["state"] for name in "abc"]


def test_within_its_memory_the_least_recently_used_model_makes_room(three, engine_calls):
    models = three(lazy=True)
    for name in ("a", "b", "a", "c"):
        models.get(name)
    assert states(models) == ["ready", "unloaded", "ready"]
    assert releases(engine_calls) == ["b.pt"]
    models.get("b")
    assert states(models) == ["unloaded", "ready", "ready"]


def test_at_start_as_many_are_loaded_as_there_is_memory_for(three, engine_calls):
    models = three()
    assert states(models) == ["ready", "ready", "unloaded"]
    assert releases(engine_calls) == []
    assert models.get("c").names == {0: "c"}


def test_what_is_in_use_is_not_unloaded_for_another(three, caplog):
    models = three(lazy=True)
    used = [models.get("a"), models.get("b")]
    models.get("c")
    assert states(models) == ["ready"] * 3
    assert "more than MODEL_MEMORY_MB" in caplog.text
    del used


def test_two_that_load_at_the_same_time_are_both_counted(three, monkeypatch, engine_calls):
    models = three(lazy=True)
    models.get("a")
    with ThreadPoolExecutor(1) as pool, slow_loads(monkeypatch, "b.pt") as begun:
        first = pool.submit(models.get, "b")
        assert begun.wait(10)
        models.get("c")
        assert states(models) == ["unloaded", "loading", "ready"]
    first.result()
    assert states(models) == ["unloaded", "ready", "ready"]


def test_what_could_not_be_loaded_takes_no_memory(three, models_dir):
    models = three(lazy=True)
    (models_dir / "b.pt").write_text("{")
    models.get("a")
    with pytest.raises(ModelUnavailable):
        models.get("b")
    models.get("c")
    assert states(models) == ["ready", "failed", "ready"]


def test_the_new_weights_of_a_model_that_was_unloaded_wait_for_a_request(
    three, write_weights, engine_calls
):
    models = three()
    old = models.version("c")
    write_weights("c.pt", {0: "new"})
    settle(models)
    assert models.version("c") != old
    assert states(models) == ["ready", "ready", "unloaded"]
    assert models.get("c").names == {0: "new"}
