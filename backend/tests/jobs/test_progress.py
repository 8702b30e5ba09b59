"""How far bulk work is, for people, for machines and for Prometheus."""

from __future__ import annotations

import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from ls_yolo.jobs.progress import Progress, State
from ls_yolo.jobs.telemetry import Telemetry


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    return Clock()


def test_without_a_terminal_a_json_object_a_line_is_written_every_few_seconds(clock):
    out = io.StringIO()
    progress = Progress(100, "Demo", out, clock=clock)
    for _ in range(20):
        clock.now += 1
        progress.add(done=2)
        progress.tick()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert 3 <= len(lines) <= 5
    assert lines[-1] == {"done": 32, "total": 100, "failed": 0, "rate": 2.0, "left_s": 34}


def test_the_rate_is_that_of_the_last_minute(clock):
    progress = Progress(100_000, "Demo", io.StringIO(), clock=clock)
    for rate in (100, 10):
        for _ in range(120):
            clock.now += 1
            progress.add(done=rate)
            progress.tick()
    assert progress.state.rate == pytest.approx(10, abs=0.5)


def test_a_failure_that_is_mended_counts_once(clock):
    progress = Progress(2, "Demo", io.StringIO(), clock=clock)
    progress.add(failed=1)
    progress.add(done=1, failed=-1)
    assert (progress.state.done, progress.state.failed) == (1, 0)


def test_more_tasks_than_were_expected_leave_nothing_negative(clock):
    progress = Progress(5, "Demo", io.StringIO(), clock=clock)
    clock.now += 1
    progress.add(done=8)
    assert (progress.state.total, progress.state.left_s) == (8, 0)


def test_for_people_a_line_says_it_in_words(clock):
    out = io.StringIO()
    progress = Progress(100, "Demo", out, text=True, clock=clock)
    clock.now += 5
    progress.add(done=10, failed=1)
    progress.tick()
    assert out.getvalue() == (
        "Demo: 10 of 100 tasks have predictions, 1 failed (2.2 a second, 0:40 left)\n"
    )


def test_for_people_nothing_is_said_where_nothing_was_done(clock):
    out = io.StringIO()
    Progress(0, "Demo", out, text=True, clock=clock).end()
    assert out.getvalue() == ""


def test_on_a_terminal_there_is_a_bar_with_rate_time_left_and_failures(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    progress = Progress(100, "[Demo]", out, clock=clock)
    clock.now += 5
    progress.add(done=48, failed=2)
    progress.tick()
    progress.end()
    shown = out.getvalue()
    for words in ("[Demo]", "50/100", "10.0/s", "0:05 left", "2 failed"):
        assert words in shown
    assert "{" not in shown


def test_metrics_are_a_file_that_is_whole_at_any_time(tmp_path):
    target = tmp_path / "new" / "prelabel.prom"
    telemetry = Telemetry(str(target), 'a "title"')
    telemetry.tell(State(10, 20, 1, 5.0, 2))
    text = target.read_text()
    assert 'ls_yolo_prelabel_done{project="a \\"title\\"",shard="0"} 10.0' in text
    assert [path.name for path in target.parent.iterdir()] == ["prelabel.prom"]


def test_when_a_run_last_ended_well_is_still_known_while_the_next_one_runs(tmp_path):
    target = tmp_path / "prelabel.prom"
    Telemetry(str(target), "Demo").tell(State(20, 20, 0, 5.0, 0), done=True)
    Telemetry(str(target), "Demo").tell(State(1, 20, 0, 5.0, 4))
    assert "success_timestamp_seconds{" in (tmp_path / "prelabel-success.prom").read_text()
    assert "success_timestamp_seconds{" not in target.read_text()


def test_shards_that_name_one_file_do_not_overwrite_each_other(tmp_path):
    for shard in range(2):
        telemetry = Telemetry(str(tmp_path / "a.prom"), "Demo", shard)
        telemetry.tell(State(shard, 20, 0, 5.0, 0), done=True)
    names = {"a-0.prom", "a-0-success.prom", "a-1.prom", "a-1-success.prom"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert 'shard="1"} 1.0' in (tmp_path / "a-1.prom").read_text()


@pytest.mark.parametrize(
    "target", ["http://", "ftp://host/", "http://host:port/", "metrics.txt", "http://[::1/"]
)
def test_metrics_that_can_never_be_told_are_refused_at_the_start(target):
    with pytest.raises(ValueError):
        Telemetry(target, "Demo")


def test_an_answer_that_is_not_http_is_an_oserror():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 no\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        telemetry = Telemetry(f"http://127.0.0.1:{server.getsockname()[1]}", "Demo")
        with pytest.raises(OSError, match="BadStatusLine"):
            telemetry.tell(State(1, 2, 0, 1.0, 1))


def test_metrics_are_sent_to_a_pushgateway(loopback):
    got = []

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self):  # PUT would take away when a run last ended well
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, body.decode()))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    port = loopback(Gateway).server_port
    Telemetry(f"http://127.0.0.1:{port}", "Demo").tell(State(1, 2, 0, 1.0, 1))
    ((path, body),) = got
    assert path.startswith("/metrics/job/ls_yolo_prelabel/")
    assert "ls_yolo_prelabel_total" in body


def test_a_pushgateway_that_is_away_is_an_oserror(loopback):
    with pytest.raises(OSError):
        Telemetry("http://127.0.0.1:1", "Demo").tell(State(1, 2, 0, 1.0, 1))
