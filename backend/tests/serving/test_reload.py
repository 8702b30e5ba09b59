"""Models that change while they answer: new weights, a new models.yaml, memory and idle time.

Files are real, and so are the looks at them, at an interval of milliseconds.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ls_yolo import files, metrics
from ls_yolo.config import ConfigError
from ls_yolo.engines import load as loader
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.models import config as models_config
from ls_yolo.models.config import Source
from ls_yolo.server import base
from ls_yolo.server import models as routes
from ls_yolo.serving import registry
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.registry import ModelUnavailable, Options, Registry, UnknownModel

POLL = 0.02
CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<RectangleLabels name="box" toName="image"><Label value="person"/></RectangleLabels></View>'
)


def load(entry):
    return loader.load_engine(entry.weights, "cpu")


def settle(models):
    """Looks until nothing waits, as the thread of `Registry.watch` does."""
    end = time.monotonic() + 10
    while not models.reconcile():
        assert time.monotonic() < end
        time.sleep(POLL / 4)


def until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(POLL / 4)


def row(models, name="a"):
    return next(row for row in models.status()["models"] if row["name"] == name)


def loads(calls):
    return [call["weights"] for call in calls if "warm_up" in call]


def releases(calls):
    return [call["weights"] for call in calls if "release" in call]


def reloads(outcome):
    return metrics.REGISTRY.get_sample_value("ls_yolo_reloads_total", {"outcome": outcome}) or 0


@pytest.fixture
def models(make_registry, write_weights):
    """A registry of the model ``a``, whose class is ``one``."""
    write_weights("a.pt", {0: "one"})
    return make_registry("a: {weights: a.pt}", poll=POLL)


# New weights


def test_new_weights_answer_without_a_restart(models, write_weights, engine_calls):
    old = models.get("a").version
    write_weights("a.pt", {0: "two"})
    settle(models)
    assert models.get("a").names == {0: "two"}
    assert models.get("a").version != old
    assert engine_calls == [
        {"weights": "a.pt", "warm_up": True},
        {"weights": "a.pt", "warm_up": True},
        {"weights": "a.pt", "release": True},
    ]
    assert row(models) == {
        "name": "a",
        "version": models.get("a").version,
        "state": "ready",
        "error": "",
        "classes": ["two"],
        "engine": "fake, cpu",
        "memory_mb": models.get("a").size >> 20,
    }


def test_the_old_model_is_released_when_its_last_user_is_done(models, write_weights, engine_calls):
    used = models.get("a")
    write_weights("a.pt", {0: "two"})
    settle(models)
    assert models.get("a") is not used
    models.reap()
    assert releases(engine_calls) == []
    assert used.batcher.submit(used.batcher.prepare(_image(), None), 0.5, 0.7).result(5) is not None
    del used
    models.reap()
    assert releases(engine_calls) == ["a.pt"]


def _image():
    import numpy as np

    return np.zeros((4, 4, 3), np.uint8)


def test_a_file_that_is_written_anew_with_the_same_content_is_not_loaded_again(
    models, write_weights, engine_calls
):
    kept = models.get("a")
    write_weights("a.pt", {0: "one"})
    settle(models)
    assert models.get("a") is kept
    assert loads(engine_calls) == ["a.pt"]


def test_a_file_of_the_same_size_and_time_is_noticed(models, models_dir, write_weights):
    before = (models_dir / "a.pt").stat()
    write_weights("a.pt", {0: "two"})
    os.utime(models_dir / "a.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (models_dir / "a.pt").stat().st_size == before.st_size
    settle(models)
    assert models.get("a").names == {0: "two"}


def test_a_swap_of_links_as_kubernetes_makes_it_is_noticed(
    make_registry, models_dir, write_weights
):
    for folder, name in (("..1", "one"), ("..2", "two")):
        write_weights(f"{folder}/a.pt", {0: name})
    (models_dir / "..data").symlink_to("..1")
    (models_dir / "a.pt").symlink_to("..data/a.pt")
    models = make_registry("a: {weights: a.pt}", poll=POLL)
    assert models.get("a").names == {0: "one"}
    (models_dir / "..new").symlink_to("..2")
    (models_dir / "..new").rename(models_dir / "..data")
    settle(models)
    assert models.get("a").names == {0: "two"}


def test_a_models_yaml_behind_such_a_link_is_noticed_too(tmp_path, engine_calls, write_weights):
    write_weights("a.pt", {0: "one"})
    for folder, conf in (("..1", 0.3), ("..2", 0.4)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "models.yaml").write_text(f"a: {{weights: a.pt, conf: {conf}}}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "models.yaml").symlink_to("..data/models.yaml")
    source = Source(tmp_path / "models.yaml", tmp_path / "models", 0.5)
    models = Registry(source, load, options=Options(poll=POLL))
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    settle(models)
    assert models.get("a").entry.conf == 0.4
    models.close()


def test_a_file_that_is_still_being_copied_is_not_loaded(
    make_registry, write_weights, engine_calls
):
    weights = write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", poll=0.4)
    models.watch()
    content = json.dumps({"names": {0: "two"}})
    with weights.open("w") as file:
        for letter in content:
            file.write(letter)
            file.flush()
            time.sleep(0.04)
            assert (row(models)["state"], row(models)["error"]) == ("ready", "")
            assert models.get("a").names == {0: "one"}
    until(lambda: models.get("a").names == {0: "two"})
    assert loads(engine_calls) == ["a.pt", "a.pt"]


def test_weights_that_are_replaced_while_they_load_never_answer_under_the_wrong_version(
    make_registry, write_weights, monkeypatch, models_dir
):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", lazy=True)
    real, names = loader.load_engine, iter(["two", "three"])

    def slow(weights, device, *more, **options):
        if name := next(names, None):
            write_weights("a.pt", {0: name})
        return real(weights, device, *more, **options)

    monkeypatch.setattr(loader, "load_engine", slow)
    found = models.get("a")
    assert found.names == {0: "three"}
    assert found.entry.sha256 == files.hash_file(models_dir / "a.pt")


def test_weights_that_are_replaced_while_they_load_do_not_stop_the_start(
    make_registry, write_weights, monkeypatch
):
    write_weights("a.pt", {0: "one"})
    real, names = loader.load_engine, iter(["two", "three"])

    def slow(*arguments):
        if name := next(names, None):
            write_weights("a.pt", {0: name})
        return real(*arguments)

    monkeypatch.setattr(loader, "load_engine", slow)
    models = make_registry("a: {weights: a.pt}", poll=POLL)
    assert models.get("a").names == {0: "three"}
    assert row(models)["error"] == ""


@pytest.mark.parametrize("lazy", [False, True])
def test_swaps_under_load_fail_no_request_and_every_answer_is_of_its_version(
    make_registry, write_weights, write_image, datasets, lazy
):
    def content(left):
        return {"boxes": [[left, 10, 120, 60, 0.9, 0]]}

    def write(left):
        write_weights("a.pt.new", {0: "person"}, **content(left)).rename(weights)

    weights = write_weights("a.pt", {0: "person"}, **content(0))
    models = make_registry("a: {weights: a.pt}", poll=POLL, lazy=lazy)
    entry = models.get("a").entry
    lefts = {}
    for left in range(12):
        text = json.dumps({"names": {0: "person"}, **content(left)})
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        lefts[dataclasses.replace(entry, sha256=sha256).version] = left
    app = routes.build(
        Predictor(models, datasets, None, "http://ls:8080"),
        ModelChoices(None),
        "",
        "",
        base.RequestLimiter(16),
    )
    body = {
        "tasks": [{"id": i, "data": {"image": write_image()}} for i in range(3)],
        "label_config": CONFIG,
    }
    stop, seen = threading.Event(), set()

    def ask():
        client, count = app.test_client(), 0
        while not stop.is_set():
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
            for result in answer.json["results"]:
                assert "error" not in result, result
                left = round(result["result"][0]["value"]["x"] * 2)  # of 200 pixels
                assert left == lefts[result["model_version"]]
                seen.add(left)
            count += 1
        return count

    models.watch()
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for left in range(1, 12):
                write(left)
                until(lambda left=left: lefts[models.get("a").version] == left)
        finally:
            stop.set()
        assert all(future.result(10) for future in asking)
    assert len(seen) > 3


# What cannot be used


FAULTS = {
    "no YAML": lambda folder: (folder / "models.yaml").write_text("a: {weights: a.pt"),
    "an unknown field": lambda folder: (folder / "models.yaml").write_text("a: {weight: a.pt}"),
    "no models.yaml": lambda folder: (folder / "models.yaml").unlink(),
    "no weights": lambda folder: (folder / "a.pt").unlink(),
    "other weights, missing": lambda folder: (folder / "models.yaml").write_text(
        "a: {weights: b.pt}"
    ),
    "corrupt weights": lambda folder: (folder / "a.pt").write_bytes(b"PK\x03\x04 cut off"),
    "a wrong hash": lambda folder: (folder / "models.yaml").write_text(
        f"a: {{weights: a.pt, sha256: '{'0' * 64}'}}"
    ),
    "a class that is not there": lambda folder: (folder / "models.yaml").write_text(
        "a: {weights: a.pt, names: {7: crew}}"
    ),
    "weights outside": lambda folder: (folder / "models.yaml").write_text("a: {weights: ../a.pt}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_leaves_the_old_model_and_is_said_once(
    models, models_dir, write_weights, caplog, fault
):
    old, failed = models.get("a"), reloads("failed")
    text = (models_dir / "models.yaml").read_text()
    with caplog.at_level(logging.ERROR, "ls_yolo"):
        FAULTS[fault](models_dir)
        for _ in range(3):
            settle(models)
            time.sleep(POLL)
    status = models.status()
    assert models.get("a") is old
    assert row(models)["state"] == "ready"
    assert row(models)["version"] == old.version
    why = status["error"] or row(models)["error"]
    assert why
    assert [record.getMessage().startswith(why) for record in caplog.records] == [True]
    assert reloads("failed") == failed + 1
    # And the cure is taken.
    (models_dir / "models.yaml").write_text(text)
    write_weights("a.pt", {0: "two"})
    settle(models)
    assert models.get("a").names == {0: "two"}
    assert (models.status()["error"], row(models)["error"]) == ("", "")


def test_who_waits_for_a_models_yaml_can_tell_by_its_hash_that_it_was_looked_at(models, models_dir):
    listed = models_dir / "models.yaml"
    for text in (listed.read_text(), "a: {weights: a.pt, conf: 0.7}", "a: {weights"):
        listed.write_text(text)
        settle(models)
        assert models.status()["config"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_models_yaml_without_the_default_model_is_not_taken(make_registry, write_weights):
    write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", default="a", poll=POLL)
    models._source.path.write_text("b: {weights: a.pt}")
    settle(models)
    assert models.names == ["a"]
    assert models.status()["error"] == "DEFAULT_MODEL: found 'a', expected one of b"


ACTIONS = st.sampled_from(["one", "two", "corrupt", "cut off", "gone", "0.3", "0.4", "no YAML"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=st.lists(ACTIONS, max_size=6))
def test_whatever_happens_to_the_files_the_last_good_state_answers(engine_calls, actions):
    """Weights and models.yaml change in any order; the model is what both last said together."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        listed, weights, conf = root / "models.yaml", root / "a.pt", "0.5"
        content = {name: json.dumps({"names": {0: name}}) for name in ("one", "two")}
        weights.write_text(content["one"])
        listed.write_text("a: {weights: a.pt}")
        models = Registry(Source(listed, root, 0.5), load, options=Options(poll=0.002))
        good, name = ("one", "0.5"), "one"
        for action in actions:
            if action in content:
                weights.write_text(content[action])
            elif action == "gone":
                weights.unlink(missing_ok=True)
            elif action == "corrupt":
                weights.write_text("{")
            elif action == "cut off":
                weights.write_text(content["one"][:-3])
            elif action == "no YAML":
                listed.write_text("a: {")
            else:
                listed.write_text(f"a: {{weights: a.pt, conf: {action}}}")
                conf = action
            while not models.reconcile():
                time.sleep(0.001)
            name = weights.read_text() if weights.exists() else ""
            name = next((n for n, text in content.items() if text == name), "")
            if name:
                good = name, conf
            found = models.get("a")
            assert (found.names, found.entry.conf) == ({0: good[0]}, float(good[1]))
            assert row(models)["version"] == found.version
            assert bool(row(models)["error"]) == (not name)
        models.close()


# A new models.yaml


def test_an_entry_that_is_new_answers_and_one_that_is_gone_does_not(
    models, models_dir, write_weights, engine_calls
):
    write_weights("b.pt", {0: "two"})
    (models_dir / "models.yaml").write_text("a: {weights: a.pt}\nb: {weights: b.pt}")
    settle(models)
    assert models.get("b").names == {0: "two"}
    assert loads(engine_calls) == ["a.pt", "b.pt"]
    (models_dir / "models.yaml").write_text("b: {weights: b.pt}")
    settle(models)
    with pytest.raises(UnknownModel):
        models.get("a")
    assert releases(engine_calls) == ["a.pt"]
    assert models.default == "b"


def test_a_new_setting_makes_a_new_version_and_leaves_the_others_alone(
    make_registry, models_dir, write_weights, engine_calls
):
    write_weights("a.pt", {0: "one"})
    write_weights("b.pt", {0: "two"})
    models = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}", poll=POLL)
    old, kept = models.version("a"), models.get("b")
    (models_dir / "models.yaml").write_text("b: {weights: b.pt}\n\na: {weights: a.pt, conf: 0.4}")
    settle(models)
    assert models.get("a").entry.conf == 0.4
    assert models.version("a") != old
    assert models.get("b") is kept
    assert models.names == ["b", "a"]


def test_the_metric_names_the_version_that_answers(models, models_dir, write_weights):
    def told():
        return {
            sample.labels["version"]
            for metric in metrics.MODEL_INFO.collect()
            for sample in metric.samples
            if sample.labels["model"] == "a"
        }

    assert told() == {models.version("a")}
    write_weights("a.pt", {0: "two"})
    settle(models)
    assert told() == {models.version("a")}


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
    monkeypatch.setattr(registry, "_size", lambda entry: 3)
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


# Asked to look


def test_who_asks_gets_the_answer_when_the_change_is_taken(models, write_weights):
    old = models.version("a")
    write_weights("a.pt", {0: "two"})
    status = models.refresh(10)
    assert status["error"] == ""
    assert status["models"][0]["version"] == models.version("a") != old


def test_without_a_change_the_answer_does_not_wait(models):
    began = time.monotonic()
    models.refresh(10)
    assert time.monotonic() - began < 1


def test_a_file_that_does_not_come_to_rest_is_an_error(make_registry, write_weights):
    weights = write_weights("a.pt", {0: "one"})
    models = make_registry("a: {weights: a.pt}", poll=1.0)
    weights.write_text("{")
    stop = threading.Event()

    def write():
        while not stop.wait(0.01):
            with weights.open("a") as file:
                file.write(" ")

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write)
        try:
            status = models.refresh(0.2)
        finally:
            stop.set()
    assert "still changing after 0.2 s" in status["error"]


# Over HTTP


@pytest.fixture
def client(models_dir, make_registry, write_weights, datasets):
    write_weights("a.pt", {0: "person"})
    (models_dir / "b.pt").write_text("{")
    found = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}", poll=POLL)
    predictor = Predictor(found, datasets, None, "http://ls:8080")
    return routes.build(
        predictor, ModelChoices(None), "user", "password", base.RequestLimiter(16)
    ).test_client()


AUTH = {"auth": ("user", "password")}


def test_readiness_counts_models_and_tells_more_to_who_may_know(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "ready", "loaded": 1, "failed": 1},
    )
    rows = client.get("/readyz", **AUTH).json["models"]
    assert [(row["name"], row["state"]) for row in rows] == [("a", "ready"), ("b", "failed")]
    assert "b.pt: cannot be loaded" in rows[1]["error"]


def test_readiness_of_a_model_that_failed_is_503(client):
    assert client.get("/m/a/readyz").status_code == 200
    assert client.get("/m/b/readyz").status_code == 503
    assert client.get("/m/c/readyz").status_code == 404


@pytest.mark.parametrize("path", ["predict", "setup"])
def test_a_model_that_failed_answers_503_with_the_reason(client, path):
    body = {"tasks": [], "label_config": CONFIG, "schema": CONFIG}
    answer = client.post(f"/m/b/{path}", json=body, **AUTH)
    assert answer.status_code == 503
    assert "b.pt: cannot be loaded" in answer.json["error"]
    assert client.post(f"/m/a/{path}", json=body, **AUTH).status_code == 200


def test_reload_takes_changes_before_it_answers(client, write_weights):
    assert client.post("/reload").status_code == 401
    write_weights("b.pt", {0: "person"})
    rows = client.post("/reload", **AUTH).json["models"]
    assert [row["state"] for row in rows] == ["ready", "ready"]
    assert client.get("/readyz").json == {"status": "ready", "loaded": 2, "failed": 0}
