"""What `Applier` does to a Label Studio that a server on loopback stands for."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from ls_yolo.labelstudio.client import Studio, TokenError
from ls_yolo.projects.apply import Applier, check_token
from ls_yolo.projects.backend import Backend


@pytest.fixture
def label_studio(loopback, monkeypatch):
    """Answers (status, content) by the end of the path, each once, the last for ever."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = SimpleNamespace(answers={}, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            name = self.path.partition("?")[0].rstrip("/").rpartition("/")[2]
            found.asked.append((self.command, name))
            answers = found.answers[name]
            status, content = answers.pop(0) if len(answers) > 1 else answers[0]
            sent = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_POST = do_DELETE = do_GET

    found.studio = Studio(f"http://127.0.0.1:{loopback(Handler).server_port}", "legacy")
    return found


def applier(label_studio):
    return Applier(label_studio.studio, Backend("http://b", "", ""), Path("/"), lambda _: None)


def test_predictions_of_other_labels_are_deleted_in_short_requests(label_studio):
    deleted = [(200, {"deleted": number}) for number in (5000, 7, 0)]
    label_studio.answers = {"ls-kit": [(200, {"calls": ["store"]})], "delete": deleted}
    applier(label_studio)._forget(1, "m@0123456789ab")
    assert label_studio.asked == [("GET", "ls-kit")] + [("POST", "delete")] * 3


def test_a_token_that_is_not_taken_is_the_same_error_wherever_it_is_seen(label_studio):
    refused = (401, {"detail": "Invalid token."})
    label_studio.answers = {"ls-kit": [refused], "whoami": [refused]}
    with pytest.raises(TokenError):
        check_token(label_studio.studio)
    made = applier(label_studio)
    project = SimpleNamespace(title="p", source="p.yaml")
    with pytest.raises(TokenError), made._told(project):
        made._forget(1, "m@0123456789ab")
