"""What get_local_path of a user's class reads and fetches, and what it may not."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler

import jwt
import pytest

from ls_yolo import settings
from ls_yolo.images.web import Web
from ls_yolo.labelstudio.client import Studio
from ls_yolo.server import user_model
from ls_yolo.user_model import files
from tests.user_model.classes import (
    MANY_MODELS,
    ask,
    numbers,
    predictor,
    set_up,
    xs,
)


@pytest.mark.parametrize("d", ["../secret.txt", "/etc/passwd", "link.txt", "missing.txt"])
def test_a_file_that_is_missing_or_outside_fails_its_task_alone(serve, tasks, tmp_path, d):
    (tmp_path / "secret.txt").write_text("1")
    (tmp_path / "datasets" / "link.txt").symlink_to(tmp_path / "secret.txt")
    client, _ = serve(MANY_MODELS)
    set_up(client, extra_params={"0": "wheelhouse-person"})
    bad = {"id": 9, "data": {"image": f"/data/local-files/?d={d}"}}
    good, failed = ask(client, [*tasks(1), bad])
    assert xs(good) == [1]
    assert failed["score"] is None and failed["error"].startswith("no file: ")


@pytest.fixture
def label_studio(loopback):
    """A Label Studio with one upload that takes the access token and no other."""

    def token(kind, left):
        claims = {"token_type": kind, "exp": int(time.time()) + left}
        return jwt.encode(claims, "of Label Studio, of 32 bytes or more")

    refresh, access = token("refresh", 9999), token("access", 300)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status, body):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            good = self.path == "/api/token/refresh/" and body["refresh"] == refresh
            self.answer(200 if good else 401, json.dumps({"access": access}).encode())

        def do_GET(self):
            good = self.headers["Authorization"] == f"Bearer {access}"
            elsewhere = re.search(r"/at-([0-9]+)\.txt$", self.path)
            if good and elsewhere:
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{elsewhere[1]}/")
                self.end_headers()
            else:
                self.answer(200 if good else 401, b"8")

    return f"http://127.0.0.1:{loopback(Handler).server_port}", refresh


def test_an_upload_is_fetched_with_a_personal_access_token(serve, monkeypatch, label_studio):
    url, key = label_studio
    # The SDK's own get_local_path would send this token as it is, and get 401.
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    client, _ = serve(MANY_MODELS, studio=Studio(url, key))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [{"id": 1, "data": {"image": "/data/upload/1/a.txt"}}])
    assert xs(found) == [8]


class Pictures(BaseHTTPRequestHandler):
    """What is no Label Studio: it says whether it was given a token."""

    def do_GET(self):
        body = b"9" if "Authorization" in self.headers else b"8"
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(body)


def test_addresses_of_private_networks_are_not_fetched_for_a_class_either(serve, loopback):
    url = f"http://127.0.0.1:{loopback(Pictures).server_port}/a.txt"
    task = {"id": 1, "data": {"image": url}}
    client, _ = serve(MANY_MODELS)
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [task])
    assert found["result"] == []
    assert "no public address" in found["error"]
    client, _ = serve(MANY_MODELS, web=Web(hosts=["127.0.0.1"]))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [task])
    assert xs(found) == [8]


def test_label_studio_may_send_a_class_elsewhere_without_the_token(
    serve, monkeypatch, loopback, label_studio
):
    url, key = label_studio
    monkeypatch.setenv("LABEL_STUDIO_URL", url)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    upload = f"/data/upload/1/at-{loopback(Pictures).server_port}.txt"
    client, _ = serve(MANY_MODELS, studio=Studio(url, key), web=Web(hosts=["localhost"]))
    set_up(client, extra_params={"0": "wheelhouse-person"})
    (found,) = ask(client, [{"id": 1, "data": {"image": upload}}])
    assert xs(found) == [8]


@pytest.mark.parametrize(("allowed", "flag"), [("", "1"), ("true", "0")])
def test_weights_that_a_class_loads_are_untrusted_unless_that_is_allowed(
    tmp_path, monkeypatch, allowed, flag
):
    """What ultralytics looks at when it is imported, which a model.py does in its first lines."""
    monkeypatch.setenv("ULTRALYTICS_SAFE_LOAD", "")
    monkeypatch.setenv("ALLOW_UNSAFE_WEIGHTS", allowed)
    module = f"model_{next(numbers)}"
    seen = "import os\nseen = os.environ['ULTRALYTICS_SAFE_LOAD']\n"
    (tmp_path / f"{module}.py").write_text(seen + predictor("return []"))
    environ = {"MODEL_CLASS": f"{module}:NewModel", "MODEL_ROOT": str(tmp_path)}
    user_model.create(settings.read("backend", environ))
    assert sys.modules[module].seen == flag


def test_what_was_fetched_is_kept_within_bounds(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{number}", (number, number))
    files.prune(tmp_path, 250)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"3", "4"}
