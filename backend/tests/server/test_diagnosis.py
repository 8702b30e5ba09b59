"""``GET /diagnosis``: what the backend's process says of itself, for the doctor."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler

import pytest
from flask import Flask

from ls_kit import folders as theirs
from ls_yolo import settings
from ls_yolo.doctor import folders
from ls_yolo.labelstudio.client import Studio
from ls_yolo.server import base, diagnosis


@pytest.fixture
def ask(datasets, tmp_path, monkeypatch):
    """Asks an application with Label Studio at ``url``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def ask(url="http://127.0.0.1:1", password="", **query):
        values = settings.read("backend", {
            "LOCAL_FILES_DOCUMENT_ROOT": str(datasets), "MODEL_DIR": str(tmp_path / "models"),
            "LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": "k" * 40,
        })  # fmt: skip
        app: Flask = base.shell("user", password, base.RequestLimiter(16))
        diagnosis.install(app, values, Studio(url, "k" * 40, 2))
        return app.test_client().get("/diagnosis", query_string=query)

    return ask


def test_a_file_is_read_and_those_that_are_not_there_or_outside_are_told(ask, datasets):
    (datasets / "a.jpg").write_bytes(b"x")
    names = ["a.jpg", "b.jpg", "../../etc/passwd"]
    told = ask(file=names).json["files"]
    assert told["a.jpg"] == ""
    assert "not found" in told["b.jpg"]
    assert told["../../etc/passwd"]


def test_more_files_than_it_looks_at_are_refused(ask):
    assert ask(file=["a"] * diagnosis.FILES).status_code == 200
    refused = ask(file=["a"] * (diagnosis.FILES + 1))
    assert refused.status_code == 400
    assert "found 101 of them, expected at most 100" in refused.text


def test_label_studio_that_is_not_reached_is_told_and_one_that_is_with_its_user(ask, loopback):
    told = ask().json["label_studio"]
    assert (told["user"], told["token"]) == ("", "legacy")
    assert "refused" in told["error"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"id": 1, "email": "a@example.com"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    told = ask(f"http://127.0.0.1:{loopback(Handler).server_port}").json["label_studio"]
    assert (told["user"], told["error"]) == ("a@example.com", "")


def test_it_is_not_for_everyone_and_shows_no_token(ask):
    assert ask(password="secret").status_code == 401
    assert "k" * 40 not in ask().text


def test_a_gpu_that_the_container_is_given_is_told(tmp_path):
    assert diagnosis.gpu(tmp_path)["devices"] == []
    (tmp_path / "nvidia0").touch()
    (tmp_path / "nvidiactl").touch()
    assert diagnosis.gpu(tmp_path)["devices"] == [str(tmp_path / "nvidia0")]


def test_both_services_describe_a_folder_alike_and_another_one_otherwise(tmp_path):
    for name in (b"one", b"two", b"caf\xe9"):
        (tmp_path / os.fsdecode(name)).mkdir()
    first = folders.describe(tmp_path)
    assert first == theirs.describe(tmp_path)
    assert (first["entries"], first["error"]) == (3, "")
    (tmp_path / "three").mkdir()
    assert folders.describe(tmp_path)["digest"] != first["digest"]
    away = folders.describe(tmp_path / "away")
    assert away == theirs.describe(tmp_path / "away")
    assert away["error"] == "No such file or directory"
