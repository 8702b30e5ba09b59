"""What is logged: a line a record, by a real application; and that no secret ever is."""

from __future__ import annotations

import base64
import contextvars
import io
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, quote_plus

import cv2
import numpy as np
import pytest
from flask import Flask, jsonify, request
from hypothesis import assume, given
from hypothesis import strategies as st

from ls_yolo import logs
from ls_yolo.logs import JsonFormatter, TextFormatter
from ls_yolo.redaction import REDACTED, Redactor

KEY, PASSWORD = "0123456789abcdef0123", "pa ss'w\"o\\rd-驾"
VALUES = {
    "LOG_LEVEL": "debug",
    "LOG_FORMAT": "json",
    "LABEL_STUDIO_API_KEY": KEY,
    "BASIC_AUTH_USER": "label-studio",
    "BASIC_AUTH_PASS": PASSWORD,
}


@pytest.fixture
def lines(monkeypatch):
    """What `configure` makes the log write; a list of lines each time it is called."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root, server = logging.getLogger(), logging.getLogger("gunicorn.error")
    before = root.handlers[:], root.level, server.handlers[:], server.propagate
    logs.configure(VALUES)
    yield lambda: stream.getvalue().splitlines()
    logging.captureWarnings(False)
    root.handlers[:], root.level, server.handlers[:], server.propagate = before


@pytest.fixture
def client():
    app = Flask("test")
    app.config["PROPAGATE_EXCEPTIONS"] = False

    @app.before_request
    def authenticate():
        if request.headers.get("Authorization") == "no":
            return jsonify(error="no"), 401
        return None

    @app.post("/predict")
    def predict():
        logs.note(tasks=len(request.get_json()["tasks"]))
        logging.getLogger("ls_yolo.serving.predictor").warning("task %s: empty", 7)
        return jsonify(results=[])

    @app.get("/health")
    def health():
        return jsonify(status="UP")

    @app.get("/broken")
    def broken():
        raise RuntimeError(f"with {KEY}")

    logs.install(app)
    return app.test_client()


def test_a_request_is_a_line_with_method_path_status_duration_and_tasks(client, lines):
    answer = client.post("/predict?token=mine", json={"tasks": [{"data": "body"}] * 2})
    inner, outer = map(json.loads, lines())
    assert outer["message"] == "POST /predict 200"
    assert (outer["method"], outer["path"], outer["status"]) == ("POST", "/predict", 200)
    assert outer["tasks"] == 2
    assert 0 <= outer["duration_ms"] < 10_000
    assert (outer["level"], outer["logger"]) == ("INFO", "ls_yolo.request")
    assert inner["message"] == "task 7: empty"
    assert inner["request_id"] == outer["request_id"] == answer.headers["X-Request-ID"]
    assert "body" not in str(lines())
    assert "mine" not in str(lines())


def test_the_id_that_a_proxy_has_chosen_is_kept(client, lines):
    answer = client.get("/broken", headers={"X-Request-ID": "a1:b2.c3_d4-e5"})
    assert answer.headers["X-Request-ID"] == "a1:b2.c3_d4-e5"
    assert {json.loads(line)["request_id"] for line in lines()} == {"a1:b2.c3_d4-e5"}


@pytest.mark.parametrize("given_id", ["", "a b", "a" * 65, "驾驶", '"', "-x", "a\x1bb"])
def test_an_id_that_is_no_id_is_replaced(client, lines, given_id):
    header = {"X-Request-ID": given_id.encode().decode("latin-1")}
    answer = client.get("/health", headers=header)
    assert len(answer.headers["X-Request-ID"]) == 32


def test_each_request_has_its_own_id_and_nothing_has_it_afterwards(client, lines):
    ids = {client.get("/health").headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
    assert logs.request_id.get() == ""
    logging.getLogger("a").info("later")
    assert "request_id" not in json.loads(lines()[-1])


def test_a_thread_has_the_id_by_a_copied_context(lines):
    logs.request_id.set("abc")
    work = contextvars.copy_context().run
    logs.request_id.set("")
    thread = threading.Thread(target=work, args=(logging.getLogger("a").info, "in a thread"))
    thread.start()
    thread.join()
    assert json.loads(lines()[0])["request_id"] == "abc"


def test_a_request_that_authentication_ends_is_a_line_too(client, lines):
    answer = client.get("/health", headers={"Authorization": "no"})
    assert answer.headers["X-Request-ID"]
    assert json.loads(lines()[0])["status"] == 401


def test_what_machines_ask_for_all_day_is_said_at_debug_only(client, lines):
    client.get("/health")
    assert json.loads(lines()[0])["level"] == "DEBUG"


def test_an_exception_is_a_field_of_one_line(client, lines):
    client.get("/broken")
    first = json.loads(lines()[0])
    assert "Traceback" in first["exception"]
    assert "RuntimeError: with [redacted]" in first["exception"]
    assert json.loads(lines()[-1])["status"] == 500


def test_gunicorn_and_libraries_say_it_the_same_way(lines):
    logging.getLogger("gunicorn.error").warning("Worker exiting")
    logging.getLogger("httpx").info("HTTP Request: GET http://label-studio:8080/data/a.jpg")
    assert [json.loads(line)["message"] for line in lines()] == ["Worker exiting"]


def record(message="", args=(), name="ls_yolo", **more):
    made = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, args, None)
    made.__dict__.update(more)
    return made


def test_text_is_a_line_for_people():
    line = TextFormatter().format(record("task %s: empty", (7,), fields={"status": 200}))
    assert line == "WARNING ls_yolo: task 7: empty status=200"


def test_arguments_that_do_not_fit_are_still_a_line():
    assert (
        json.loads(JsonFormatter().format(record("%d tasks", ("many",))))["message"] == "%d tasks"
    )


def test_a_message_that_is_no_text_is_one():
    assert json.loads(JsonFormatter().format(record({"a": 1})))["message"] == "{'a': 1}"


@given(st.text(st.characters()), st.dictionaries(st.text(), st.text() | st.integers()))
def test_whatever_is_said_is_one_line_of_json(text, fields):
    line = JsonFormatter().format(record("%s", (text,), fields=fields))
    assert len(line.splitlines()) == 1
    assert line.encode()
    assert isinstance(json.loads(line), dict)


@given(st.text(st.characters()))
def test_whatever_is_said_is_one_line_of_text(text):
    line = TextFormatter().format(record("%s", (text,), fields={"path": text}))
    assert len(line.splitlines()) == 1
    assert line.encode()


# Secrets

SECRETS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=8, max_size=40)
SPELLINGS = [
    str,
    repr,
    json.dumps,
    quote,
    quote_plus,
    lambda secret: base64.b64encode(f"label-studio:{secret}".encode()).decode(),
    lambda secret: f"http://label-studio:{quote(secret, safe='')}@host/",
    lambda secret: str({"headers": {"Authorization": f"Token {secret}"}}),
]


@given(
    SECRETS,
    st.sampled_from(SPELLINGS),
    st.text(),
    st.text(),
    st.sampled_from(["message", "argument", "field", "exception", "request_id"]),
    st.sampled_from([JsonFormatter, TextFormatter]),
)
def test_no_secret_of_the_settings_ever_appears(secret, spell, before, after, where, kind):
    assume(secret not in str(json.dumps(before + after)) and secret not in REDACTED)
    spelled = spell(secret)
    text = before + spelled + after
    made = record("a")
    if where == "message":
        made = record(text)
    elif where == "argument":
        made = record("%s %r", (text, text))
    elif where == "field":
        made = record("a", fields={"path": text})
    elif where == "exception":
        try:
            raise ValueError(text)
        except ValueError as error:
            made.exc_info = (ValueError, error, error.__traceback__)
    else:
        logs.request_id.set(text)
    line = kind(Redactor([secret])).format(made)
    logs.request_id.set("")
    assert spelled not in line
    assert json.dumps(spelled)[1:-1] not in line
    if kind is JsonFormatter:
        assert all(spelled not in str(value) for value in json.loads(line).values())


DAMAGED = """
import sys, warnings
from pathlib import Path
from ls_yolo import logs
from ls_yolo.images import decode, limits
logs.configure({"LOG_LEVEL": "INFO", "LOG_FORMAT": "json"})
for name in sys.argv[1:]:
    try:
        decode.decode(Path(name).read_bytes())
    except limits.MediaError:
        print("refused")
warnings.warn("from a library")
"""


def test_what_libraries_say_of_damaged_images_and_warn_of_is_json_or_nothing(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    kinds = (".png", ".bmp", ".jp2", ".jpg", ".tiff")
    for kind in kinds:
        data = cv2.imencode(kind, picture)[1].tobytes()
        (tmp_path / f"a{kind}").write_bytes(data[: len(data) // 2])
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, *(str(tmp_path / f"a{kind}") for kind in kinds)],
        env={**os.environ, "PYTHONPATH": str(Path(logs.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "refused\n" * 2  # of the others what is there counts
    said = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert "from a library" in said[-1]
