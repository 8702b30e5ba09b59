"""A run reports itself to the status page, in the form that the page takes."""

from __future__ import annotations

import base64
import json
import time
from http.server import BaseHTTPRequestHandler

import pytest

from ls_yolo.jobs.board import Board
from ls_yolo.jobs.predicting import Target
from ls_yolo.jobs.progress import State
from ls_yolo.server.status.jobs import Jobs

TARGET = Target(3, "Ships" * 100, "<View/>")
STATE = State(8, 20, 2, 3.5, 3)


@pytest.fixture
def page(loopback, monkeypatch):
    """The backend's address, and the runs that it shows; ``status``: what it answers."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class Page:
        jobs, status, auth = Jobs(), 200, []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/jobs"
            Page.auth.append(self.headers["Authorization"])
            if Page.status == 200:
                Page.jobs.report(json.loads(body))
            self.send_response(Page.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    Page.url = f"http://127.0.0.1:{loopback(Handler).server_port}/"
    return Page


def test_a_run_is_shown_with_failures_apart_and_its_end(page):
    board = Board(page.url, "user", "secret", TARGET, "m@1")
    board.tell(STATE)
    (job,) = page.jobs.all()
    assert (job.project, job.version, job.done, job.failed, job.total) == (3, "m@1", 8, 2, 20)
    assert (job.state, job.rate, job.shard) == ("running", 3.5, "")
    assert job.host and job.title.startswith("Ships")
    board.tell(STATE, "failed")
    assert [job.state for job in page.jobs.all()] == ["failed"]
    assert page.auth[0] == "Basic " + base64.b64encode(b"user:secret").decode()


def test_shards_are_runs_of_their_own_and_one_alone_is_none(page):
    for shard in ((0, 2), (1, 2), (0, 1)):
        Board(page.url, "", "", TARGET, "m@1", shard).tell(STATE)
    assert sorted(job.shard for job in page.jobs.all()) == ["", "0/2", "1/2"]


def test_a_report_that_fails_stops_no_run_and_the_next_one_is_made(page):
    board = Board(page.url, "", "", TARGET, "m@1")
    page.status = 401
    board.tell(STATE)
    page.status = 200
    board.tell(STATE)
    assert len(page.jobs.all()) == 1
    Board("http://127.0.0.1:1", "", "", TARGET, "m@1").tell(STATE)
    Board("nonsense", "", "", TARGET, "m@1").tell(STATE)
    Board("", "", "", TARGET, "m@1").tell(STATE)


def test_a_run_with_models_of_its_own_asks_once_where_no_backend_is(page):
    board = Board("http://127.0.0.1:1", "", "", TARGET, "m@1", once=True)
    board.tell(STATE)
    board.url = page.url
    board.tell(STATE)
    assert page.jobs.all() == []


def test_a_backend_that_hangs_holds_up_nothing_for_long(loopback, monkeypatch):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            time.sleep(5)

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ls_yolo.jobs.board.SECONDS", 0.2)
    began = time.monotonic()
    Board(f"http://127.0.0.1:{loopback(Handler).server_port}", "", "", TARGET, "m@1").tell(STATE)
    assert time.monotonic() - began < 3
