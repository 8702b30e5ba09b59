"""Requests that are malformed or too large."""

from __future__ import annotations

import io

import pytest

from backend.tests.server.label_studio import basic, setup
from ls_yolo.server import base


@pytest.mark.parametrize("path", ["/setup", "/predict", "/m/head/predict"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(client, path, body):
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"] == "expected a JSON object as the body"


@pytest.mark.parametrize("tasks", [None, {}, "x", 5, [None], [[]], ["x"], [{}, 5]])
def test_tasks_that_are_no_tasks_are_400(client, ask, tasks):
    answer = client.post("/predict", json=ask(tasks=tasks))
    assert answer.status_code == 400
    assert answer.json["error"] == "tasks: expected a list of tasks, each a JSON object"


@pytest.mark.parametrize("value", [5, {"a": 1}, ["x"]])
def test_a_configuration_that_is_no_text_is_400(client, ask, value):
    assert client.post("/predict", json=ask(label_config=value)).status_code == 400
    assert setup(client, schema=value).status_code == 400


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize("password", ["", "secret"])
def test_a_body_that_is_too_large_is_413(make, monkeypatch, path, password):
    monkeypatch.setattr(base, "MAX_BODY", 1000)
    client = make("user" if password else "", password)
    headers = basic("user", password) if password else {}
    body = {"action": "x", "tasks": ["x" * 2000]}
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == 413


def test_a_body_of_unknown_length_that_is_too_large_is_413_too(make, monkeypatch):
    monkeypatch.setattr(base, "MAX_BODY", 1000)
    client = make()
    for size, status in ((999, 400), (1001, 413)):
        answer = client.post(
            "/predict",
            input_stream=io.BytesIO(b" " * size),
            content_type="application/json",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert answer.status_code == status
