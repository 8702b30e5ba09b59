"""The address that people open, asked as a browser does."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import ls_yolo
from ls_yolo.doctor import address
from ls_yolo.doctor.base import Level

UP = b'{"status": "UP"}'


@pytest.fixture
def serve(loopback):
    """Starts a server that answers /health, sends / to ``there``, and forms with ``status``."""

    def serve(health=UP, there="/user/login/", status=200):
        class Handler(BaseHTTPRequestHandler):
            def answer(self, code, body=b"", **headers):
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                if self.path == "/health":
                    self.answer(200, health)
                elif self.path == "/":
                    self.answer(302, Location=there)
                else:
                    self.answer(200, b"form", Set_Cookie="csrftoken=abc; Path=/")

            def do_POST(self):
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                browser = "csrftoken=abc" in self.headers["Cookie"] and self.headers["Origin"]
                self.answer(status if browser and "csrfmiddlewaretoken=abc" in form else 403)

        return f"http://127.0.0.1:{loopback(Handler).server_port}"

    return serve


def test_label_studio_that_takes_forms_is_green(serve):
    (found,) = address.look(serve() + "/")
    assert (found.level, found.fix) == (Level.OK, "")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"health": b"nginx"}, "something else than Label Studio answers there"),
        ({"there": "http://elsewhere:8080/"}, "people are sent on to http://elsewhere:8080"),
        ({"status": 403}, "forms are refused (CSRF)"),
        ({"status": 502}, "is answered with 502"),
    ],
)
def test_each_fault_of_an_address_is_red(serve, fault, says):
    (found,) = address.look(serve(**fault))
    assert found.level == Level.FAILED and found.fix
    assert says in found.found


def test_where_nobody_listens_it_says_so():
    (found,) = address.look("http://127.0.0.1:1")
    assert found.level == Level.FAILED
    assert "not reached" in found.found and "refused" in found.found


def test_the_host_runs_it_with_the_standard_library_alone(serve):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "ls_yolo.doctor.address", serve()],
        cwd=Path(ls_yolo.__file__).parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["check"], row["level"]) == ("address", "ok")
