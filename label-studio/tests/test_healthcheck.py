"""The healthcheck against a server of the test's own."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ls_kit import healthcheck


@pytest.fixture
def server():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(self.server.status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args):
            pass

    found = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (500, 1), (302, 1)])
def test_answers(server, status, code):
    server.status = status
    assert healthcheck.main(port=server.server_port) == code


def test_nobody_there(server, capsys):
    port = server.server_port
    server.shutdown()
    server.server_close()
    assert healthcheck.main(port=port) == 1
    assert "/health" in capsys.readouterr().err
