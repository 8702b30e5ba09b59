"""Logins in addresses."""

from __future__ import annotations

import http.server
import threading

import pytest

from lib import net


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://ann:p%40s@host:8/simple/", ("https://host:8/simple/", "ann", "p@s")),
        ("https://token@host/", ("https://host/", "token", "")),
        ("https://ann:p@ss@host/", ("https://host/", "ann", "p@ss")),
        ("https://host/a@b", ("https://host/a@b", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_login_in_an_address_is_split_off(url, parts):
    assert net.split_login(url) == parts
    assert net.without_password(url) == parts[0]


def test_a_login_goes_to_its_own_host_alone():
    index = "https://ann:secret@host/simple"
    assert net.with_login_of(index, "https://host/a.whl") == "https://ann:secret@host/a.whl"
    for other in ("https://files/a.whl", "http://host/a.whl"):
        assert net.with_login_of(index, other) == other
    assert net.with_login_of("https://host/simple", "https://host/a") == "https://host/a"


def test_a_login_reaches_the_server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.headers["Authorization"] == "Basic YW5uOnBAc3M="
            self.send_response(200 if good else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        assert net.answers(f"http://ann:p%40ss@{host}/")
        assert not net.answers(f"http://ann:other@{host}/")
        server.shutdown()
