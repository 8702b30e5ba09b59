"""What Prometheus is told: by a real application, in the format that Prometheus reads."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import get_args

import pytest
from flask import Flask, jsonify
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from ls_yolo import metrics
from ls_yolo.images.limits import Kind, MediaError
from ls_yolo.server.base import observe

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def value(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def app():
    app = Flask("test")

    @app.before_request
    def authenticate():
        from flask import request

        if request.headers.get("Authorization") != "yes":
            answer = jsonify(error="authentication is needed")
            answer.status_code = 401
            return answer
        return None

    @app.get("/m/<name>/predict")
    def predict(name):
        return jsonify(name)

    @app.get("/broken")
    def broken():
        raise RuntimeError

    observe(app)
    return app


@pytest.fixture
def client(app):
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return app.test_client()


GOOD = {"Authorization": "yes"}


def test_requests_are_counted_by_endpoint_and_status_and_timed(client):
    before = value("ls_yolo_requests_total", endpoint="predict", status="200")
    timed = value("ls_yolo_request_seconds_count", endpoint="predict")
    client.get("/m/a/predict", headers=GOOD)
    client.get("/m/b/predict", headers=GOOD)
    assert value("ls_yolo_requests_total", endpoint="predict", status="200") == before + 2
    assert value("ls_yolo_request_seconds_count", endpoint="predict") == timed + 2


@pytest.mark.parametrize(
    ("path", "headers", "endpoint", "status"),
    [
        ("/m/a/predict", {}, "predict", "401"),
        ("/broken", GOOD, "broken", "500"),
        ("/no/such/address", GOOD, "none", "404"),
    ],
)
def test_requests_that_fail_are_counted_too(client, path, headers, endpoint, status):
    before = value("ls_yolo_requests_total", endpoint=endpoint, status=status)
    client.get(path, headers=headers)
    assert value("ls_yolo_requests_total", endpoint=endpoint, status=status) == before + 1


def test_metrics_are_behind_authentication(client):
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers=GOOD).status_code == 200


def test_prometheus_can_read_all_of_it(client):
    metrics.BATCH_SIZE.labels("a").observe(8)
    answer = client.get("/metrics", headers=GOOD)
    assert answer.content_type.startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert families >= {
        "ls_yolo_requests",
        "ls_yolo_request_seconds",
        "ls_yolo_images",
        "ls_yolo_stage_seconds",
        "ls_yolo_batch_size",
        "ls_yolo_queue_depth",
        "ls_yolo_model_info",
        "ls_yolo_reloads",
        "ls_yolo_errors",
        "process_resident_memory_bytes",
        "process_open_fds",
    }


def test_openmetrics_is_spoken_where_it_is_asked_for(client):
    answer = client.get("/metrics", headers={**GOOD, "Accept": "application/openmetrics-text"})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_a_stage_is_timed_even_where_it_fails():
    before = value("ls_yolo_stage_seconds_count", stage="decode")
    with metrics.stage("decode"):
        pass
    with pytest.raises(MediaError), metrics.stage("decode"):
        raise MediaError("damaged")
    assert value("ls_yolo_stage_seconds_count", stage="decode") == before + 2


def test_buckets_go_from_a_millisecond_to_the_time_that_label_studio_waits():
    assert metrics.SECONDS[0] == 0.001
    assert metrics.SECONDS[-1] == 100
    assert list(metrics.SECONDS) == sorted(metrics.SECONDS)


def test_an_error_is_counted_by_its_kind_or_its_class():
    class Kind(Exception):
        kind = "too_large"

    before = [value("ls_yolo_errors_total", kind=kind) for kind in ("too_large", "KeyError")]
    metrics.count_error(Kind())
    metrics.count_error(KeyError("a name of a file that must be no label"))
    after = [value("ls_yolo_errors_total", kind=kind) for kind in ("too_large", "KeyError")]
    assert after == [before[0] + 1, before[1] + 1]


def versions(model):
    return {
        sample.labels["version"]
        for metric in metrics.MODEL_INFO.collect()
        for sample in metric.samples
        if sample.labels["model"] == model
    }


def test_a_model_has_one_version_at_a_time():
    metrics.set_model("swapped", "swapped@1")
    metrics.set_model("swapped", "swapped@2")
    metrics.set_model("other", "other@1")
    assert versions("swapped") == {"swapped@2"}
    metrics.QUEUE_DEPTH.labels("swapped").set(3)
    metrics.forget_model("swapped")
    metrics.forget_model("swapped")
    assert versions("swapped") == set()
    assert metrics.REGISTRY.get_sample_value("ls_yolo_queue_depth", {"model": "swapped"}) is None
    assert versions("other") == {"other@1"}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=5)), max_size=8))
def test_whatever_is_swapped_the_last_version_counts(swaps):
    for model, version in swaps:
        metrics.set_model(model, version)
    for model, version in dict(swaps).items():
        assert versions(model) == {version}
    for model in "ab":
        metrics.forget_model(model)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that torch uses."""
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 1,
        mem_get_info=lambda index: (6, 10),
        memory_allocated=lambda index: 1,
        memory_reserved=lambda index: 2,
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))


def test_gpu_memory_is_told_where_torch_uses_one(gpu):
    found = {
        kind: value("ls_yolo_gpu_memory_bytes", device="cuda:0", kind=kind)
        for kind in ("allocated", "reserved", "free", "total")
    }
    assert found == {"allocated": 1, "reserved": 2, "free": 6, "total": 10}


@pytest.mark.parametrize(
    "torch",
    [None, types.SimpleNamespace(), types.SimpleNamespace(cuda=types.SimpleNamespace())],
)
def test_without_a_gpu_nothing_is_told_of_one(monkeypatch, torch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "ls_yolo_gpu_memory_bytes" not in {family.name for family in metrics.REGISTRY.collect()}


def test_the_page_on_metrics_has_each_with_its_labels_and_its_kind(gpu):
    own = [m for m in vars(metrics).values() if isinstance(m, MetricWrapperBase)]
    made = {metric._name: metric._labelnames for metric in own}
    there = []
    for family in metrics.REGISTRY.collect():
        if family.name.startswith("ls_yolo_"):
            labels = ",".join(made.get(family.name) or family.samples[0].labels)
            total = "_total" if family.type == "counter" else ""
            there.append((f"{family.name}{total}{{{labels}}}", family.type))
    rows = re.findall(r"^\| `(ls_yolo_\w+{[\w,]+})` \| (\w+) \|", PAGE, re.M)
    assert sorted(rows) == sorted(there)


def test_the_page_on_metrics_asks_for_nothing_that_is_not_there(gpu):
    names = {family.name for family in metrics.REGISTRY.collect()}
    asked = set(re.findall(r"\b(?:ls_yolo|process)_[a-z_]+[a-z]", PAGE))
    known = {name + end for name in names for end in ("", "_total", "_bucket", "_sum", "_count")}
    assert asked <= known
    kinds = {f"media_{kind}" for kind in get_args(Kind)}
    assert set(re.findall(r"\bmedia_[a-z_]+", PAGE)) == kinds
    stages = re.search(r"stage_seconds\{stage\}.*", PAGE)[0]
    assert all(f"`{stage}`" in stages for stage in get_args(metrics.Stage))
