"""Who may ask what, and what nobody is told."""

from __future__ import annotations

import json
import logging

import pytest

from backend.tests.server.label_studio import ANNOTATION, CONFIG, OPEN, ROUTES, TRAINING, basic
from ls_yolo import SMALL_BODY
from ls_yolo.serving.predictor import Predictor

# Webhooks


@pytest.mark.parametrize("body", [ANNOTATION, {"action": "TASKS_CREATED"}, {}, [], "x"])
def test_webhooks_of_tasks_and_annotations_are_ignored(client, body):
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


def test_training_is_said_not_to_be_offered(client):
    assert client.post("/webhook", json=TRAINING).status_code == 501


# Authentication


@pytest.mark.parametrize("prefix", ["", "/m/person"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_all_but_health_asks_for_user_and_password(make, ask, method, path, prefix):
    client = make("user", "pässword")
    body = TRAINING if path == "/webhook" else ask(schema=CONFIG)
    for headers in (
        {},
        basic("user", "wrong"),
        basic("wrong", "pässword"),
        basic("", ""),
        {"Authorization": "Bearer pässword".encode().decode("latin-1")},
        {"Authorization": "Basic %%%"},
    ):
        answer = client.open(prefix + path, method=method, json=body, headers=headers)
        assert answer.status_code == (200 if path in OPEN else 401)
        if path not in OPEN:
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    answer = client.open(prefix + path, method=method, json=body, headers=basic("user", "pässword"))
    assert answer.status_code == (501 if path == "/webhook" else 200)


@pytest.mark.parametrize("user", ["", "label-studio"])
def test_without_a_password_nobody_is_asked(make, ask, user):
    assert make(user, "").post("/predict", json=ask()).status_code == 200


def test_a_path_that_is_not_there_asks_too(make):
    assert make("user", "password").get("/nothing").status_code == 401


@pytest.mark.parametrize("prefix", ["", "/m/person"])
def test_webhooks_of_annotations_come_without_a_password_and_are_ignored(make, prefix):
    answer = make("user", "password").post(f"{prefix}/webhook", json=ANNOTATION)
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, json.dumps(TRAINING).encode() + b" " * SMALL_BODY]
)
def test_a_webhook_without_a_password_that_says_nothing_or_too_much_is_ignored(make, body):
    answer = make("user", "password").post("/webhook", data=body, content_type="application/json")
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, TRAINING])
def test_training_with_a_wrong_password_is_refused(make, body):
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = make("user", "password").post(
        "/webhook", data=data, content_type="application/json", headers=basic("user", "wrong")
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/health", "/", "/readyz"])
def test_who_has_no_password_is_told_no_name_of_a_model(make, path):
    client = make("user", "password")
    for names in ("persn", "heat", "person+heat", "+"):
        for headers in ({}, basic("user", "wrong")):
            answer = client.get(f"/m/{names}{path}", headers=headers)
            assert answer.status_code == (400 if names == "+" else 404)
            assert answer.json == {"error": "more is said with the password"}
    answer = client.get(f"/m/persn{path}", headers=basic("user", "password"))
    assert "did you mean 'person'?" in answer.json["error"]


# Secrets


def test_no_token_of_a_request_is_logged_or_answered(make, ask, caplog):
    caplog.set_level(logging.DEBUG)
    client = make("user", "password")
    secret = {"access_token": "hunter2", "params": {"login": "l", "password": "hunter2"}}
    for path in ("/setup", "/predict", "/m/none/setup", "/webhook"):
        for config in (CONFIG, "<View>"):
            for headers in ({}, basic("user", "password"), basic("user", "hunter2")):
                body = ask(schema=config, **secret) | {"label_config": config}
                assert "hunter2" not in client.post(path, json=body, headers=headers).text
    assert "hunter2" not in caplog.text
    assert "aHVudGVyMg" not in caplog.text


def test_an_error_that_nobody_expected_says_nothing_of_the_inside(client, ask, monkeypatch, caplog):
    def fail(*arguments):
        raise KeyError("hunter2")

    monkeypatch.setattr(Predictor, "plan", fail)
    answer = client.post("/predict", json=ask())
    assert (answer.status_code, answer.json) == (
        500,
        {"error": "the backend failed; its log says why"},
    )
