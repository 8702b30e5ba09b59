"""Models that change while they answer: new weights, a new models.yaml, memory and idle time.

Files are real, and so are the looks at them, at an interval of milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.tests.server.label_studio import CONFIG
from backend.tests.serving.reloading import POLL, loads, releases, reloads, row, settle, until
from ls_yolo import files, metrics
from ls_yolo.engines import load as loader
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.models.config import Source
from ls_yolo.server import base
from ls_yolo.server import models as routes
from ls_yolo.serving.loading import Loader
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import Options, Registry, UnknownModel


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
        "task": "detect",
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
    models = Registry(source, Loader(), options=Options(poll=POLL))
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
        Predictor(models, ImageReader(datasets, None, "http://ls:8080")),
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
    # And the fix is taken.
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
        models = Registry(Source(listed, root, 0.5), Loader(), options=Options(poll=0.002))
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
