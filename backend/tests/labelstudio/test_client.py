"""Label Studio's API, against a real HTTP server on loopback that answers as Label Studio does."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote

import jwt
import pytest

from ls_yolo.images.limits import MediaError
from ls_yolo.images.source import Redirect
from ls_yolo.labelstudio import client
from ls_yolo.labelstudio.client import Studio, StudioError

SIGNING_KEY = "a key of thirty-two bytes or more"


def token(kind, lifetime):
    claims = {"token_type": kind, "exp": int(time.time()) + lifetime, "jti": str(time.time_ns())}
    return jwt.encode(claims, SIGNING_KEY, "HS256")


class LabelStudio:
    """A server with uploads, token exchange and ML connections.

    ``good`` is the Authorization that it takes; ``answer``, where set, is its answer to everything.
    """

    def __init__(self, loopback):
        self.good = {"Token legacy"}
        self.files = {"/data/upload/1/a.jpg": b"jpeg"}
        self.connections = []
        self.refreshes = []
        self.lifetime = 300
        self.answer = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def reply(self, status, body, **headers):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if outer.answer:
                    self.reply(*outer.answer[:2], **(outer.answer[2] if outer.answer[2:] else {}))
                elif self.headers["Authorization"] not in outer.good:
                    self.reply(401, b'{"detail": "Invalid token."}')
                elif self.path == "/api/ml?project=3" or self.path == "/api/ml/?project=3":
                    self.reply(200, json.dumps(outer.connections).encode())
                elif unquote(self.path) in outer.files:
                    self.reply(200, outer.files[unquote(self.path)])
                else:
                    self.reply(404, b"{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.refreshes.append((self.path, body))
                if outer.answer:
                    self.reply(*outer.answer)
                    return
                access = token("access", outer.lifetime)
                outer.good = {f"Bearer {access}"}
                self.reply(200, json.dumps({"access": access}).encode())

        self.url = f"http://127.0.0.1:{loopback(Handler).server_port}"


@pytest.fixture
def label_studio(monkeypatch, loopback):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return LabelStudio(loopback)


def test_an_upload_is_fetched_with_an_api_token(label_studio):
    assert Studio(label_studio.url + "/", "legacy").fetch("/data/upload/1/a.jpg", 100) == b"jpeg"
    assert label_studio.refreshes == []


@pytest.mark.parametrize(
    "name", ["a b.jpg", "100%.jpg", "a#b?c&d=e.jpg", "驾驶室.jpg", "%2e%2e.jpg"]
)
def test_a_name_arrives_as_it_is(label_studio, name):
    label_studio.files[f"/data/upload/1/{name}"] = b"here"
    assert Studio(label_studio.url, "legacy").fetch(f"/data/upload/1/{name}", 100) == b"here"


def test_a_personal_access_token_is_exchanged_once_while_the_access_token_lives(label_studio):
    personal = token("refresh", 3600)
    client = Studio(label_studio.url, personal)
    for _ in range(3):
        assert client.fetch("/data/upload/1/a.jpg", 100) == b"jpeg"
    assert label_studio.refreshes == [("/api/token/refresh/", {"refresh": personal})]


def test_an_access_token_that_has_expired_is_exchanged_anew(label_studio):
    client = Studio(label_studio.url, token("refresh", 3600))
    label_studio.lifetime = -1
    assert client.fetch("/data/upload/1/a.jpg", 100) == b"jpeg"
    label_studio.lifetime = 300
    assert client.fetch("/data/upload/1/a.jpg", 100) == b"jpeg"
    assert len(label_studio.refreshes) == 2


def test_a_personal_access_token_that_has_expired_is_said_to_be_so(label_studio):
    client = Studio(label_studio.url, token("refresh", -1))
    with pytest.raises(StudioError, match=r"has expired.*; make a new one in Label Studio"):
        client.fetch("/data/upload/1/a.jpg", 100)
    assert label_studio.refreshes == []


def test_a_token_that_is_not_taken_is_said_to_be_so_and_is_not_shown(label_studio):
    with pytest.raises(StudioError) as caught:
        Studio(label_studio.url, "hunter2").fetch("/data/upload/1/a.jpg", 100)
    assert str(caught.value) == (
        "/data/upload/1/a.jpg: Label Studio answered 401; check LABEL_STUDIO_API_KEY"
    )


def test_a_redirect_to_the_login_page_is_not_followed(label_studio):
    label_studio.answer = (302, b"", {"Location": "/user/login/"})
    with pytest.raises(StudioError, match="answered 302; check LABEL_STUDIO_API_KEY"):
        Studio(label_studio.url, "legacy").fetch("/data/upload/1/a.jpg", 100)


def test_a_missing_upload_is_the_fault_of_the_task(label_studio):
    with pytest.raises(MediaError, match=r"/data/upload/1/b\.jpg: Label Studio does not have it"):
        Studio(label_studio.url, "legacy").fetch("/data/upload/1/b.jpg", 100)


def test_an_upload_beyond_the_limit_is_not_read_to_its_end(label_studio):
    label_studio.files["/data/upload/1/a.jpg"] = b"0" * 1000
    client = Studio(label_studio.url, "legacy")
    assert len(client.fetch("/data/upload/1/a.jpg", 1000)) == 1000
    with pytest.raises(MediaError, match="larger than"):
        client.fetch("/data/upload/1/a.jpg", 999)


def test_a_file_of_a_storage_is_fetched_with_its_query(label_studio):
    label_studio.files["/tasks/1/resolve/?fileuri=czM6Ly9iL2E="] = b"jpeg"
    here = Studio(label_studio.url, "legacy")
    assert here.fetch("/tasks/1/resolve/", 100, "fileuri=czM6Ly9iL2E%3D") == b"jpeg"
    with pytest.raises(MediaError, match="or no storage of the project covers it") as caught:
        here.fetch("/tasks/2/resolve/", 100, "fileuri=czM6Ly9iL2E%3D")
    assert caught.value.kind == "media_missing"


def test_a_signed_address_of_a_storage_is_handed_back_and_not_asked_with_the_token(label_studio):
    url = "https://bucket.example.com/a.jpg?X-Amz-Signature=1"
    label_studio.answer = (303, b"", {"Location": url})
    with pytest.raises(Redirect) as caught:
        Studio(label_studio.url, "legacy").fetch("/tasks/1/resolve/", 100, "fileuri=x")
    assert caught.value.url == url


@pytest.mark.parametrize("location", ["/user/login/?next=/tasks/1/resolve/", "", "{}/user/login/"])
def test_a_redirect_within_label_studio_means_that_the_token_does_not_count(label_studio, location):
    label_studio.answer = (303, b"", {"Location": location.format(label_studio.url)})
    with pytest.raises(StudioError, match="answered 303; check LABEL_STUDIO_API_KEY"):
        Studio(label_studio.url, "legacy").fetch("/tasks/1/resolve/", 100, "fileuri=x")


def test_a_storage_that_label_studio_cannot_read_is_the_fault_of_the_task(label_studio):
    label_studio.answer = (424, b"{}")
    with pytest.raises(MediaError, match="Label Studio cannot read its storage"):
        Studio(label_studio.url, "legacy").fetch("/tasks/1/resolve/", 100, "fileuri=x")


def test_a_file_that_drips_is_given_up(label_studio, monkeypatch):
    monkeypatch.setattr(client, "FETCH_SECONDS", 0)
    label_studio.files["/data/upload/1/a.jpg"] = b"0" * 100_000
    with pytest.raises(MediaError, match="took more than") as caught:
        Studio(label_studio.url, "legacy").fetch("/data/upload/1/a.jpg", 1_000_000)
    assert caught.value.kind == "media_too_slow"


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_fault_of_label_studio_is_not_that_of_the_task(label_studio, status):
    label_studio.answer = (status, b"<html>Bad Gateway</html>")
    for key in ("legacy", token("refresh", 3600)):
        with pytest.raises(StudioError):
            Studio(label_studio.url, key).fetch("/data/upload/1/a.jpg", 100)


def test_nobody_listening_is_said_to_be_so():
    with pytest.raises(StudioError, match=r"unavailable from http://127\.0\.0\.1:1: ConnectError"):
        Studio("http://127.0.0.1:1", "legacy").fetch("/data/upload/1/a.jpg", 100)


def test_a_label_studio_that_hangs_holds_predictions_up_once_and_not_one_after_another(
    monkeypatch,
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(client, "ASK_TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(8) as pool:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        key = token("refresh", 3600)
        here = Studio.read({"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": key})
        started = time.monotonic()
        jobs = [pool.submit(here.fetch, "/data/upload/1/a.jpg", 100) for _ in range(4)]
        jobs += [pool.submit(here.connections, 3) for _ in range(4)]
        for job in jobs:
            with pytest.raises(StudioError, match="ReadTimeout"):
                job.result()
        assert time.monotonic() - started < 2


def test_a_token_that_was_refused_is_asked_for_again(label_studio, monkeypatch):
    monkeypatch.setattr(client, "REFUSED_FOR", 0.0)
    here = Studio(label_studio.url, token("refresh", 3600))
    label_studio.answer = (502, b"<html>Bad Gateway</html>")
    with pytest.raises(StudioError):
        here.fetch("/data/upload/1/a.jpg", 100)
    label_studio.answer = None
    assert here.fetch("/data/upload/1/a.jpg", 100) == b"jpeg"


def test_the_connections_of_a_project_are_listed(label_studio):
    label_studio.connections = [
        {"id": 1, "project": 3, "url": "http://backend:9090", "extra_params": {"0": "a"}}
    ]
    (row,) = Studio(label_studio.url, "legacy").connections(3)
    assert (row["url"], row["extra_params"]) == ("http://backend:9090", {"0": "a"})


def test_connections_that_cannot_be_had_are_an_error_that_names_the_project(label_studio):
    with pytest.raises(StudioError, match=r"connections of project 3: 401: Invalid token\."):
        Studio(label_studio.url, "hunter2").connections(3)
    label_studio.answer = (502, b"<html>Bad Gateway</html>")
    with pytest.raises(StudioError, match="connections of project 3: "):
        Studio(label_studio.url, token("refresh", 3600)).connections(3)
    with pytest.raises(StudioError, match="connections of project 3: ConnectError"):
        Studio("http://127.0.0.1:1", "legacy").connections(3)
