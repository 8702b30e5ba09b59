"""What the backend's answers, and those of a proxy before it, mean for a run."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest

from ls_yolo.jobs.predicting import Away, Busy, Lost, OverHttp, PredictingError, Target
from ls_yolo.labelstudio.bulk import Task


@pytest.mark.parametrize(
    ("status", "error"),
    [(429, Busy), (503, Away), (502, Lost), (504, Lost), (500, Lost), (401, PredictingError)],
)
def test_a_proxy_that_lost_the_backend_over_a_request_may_have_lost_it_to_a_task(
    loopback, monkeypatch, status, error
):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{loopback(Handler).server_port}"
    asked = OverHttp(url, "", "", Target(1, "Demo", "<View/>"))
    with pytest.raises(PredictingError, match=str(status)) as caught:
        asked.predict([Task(1, {})])
    assert type(caught.value) is error
    # Where none is under way, no task is to blame.
    with pytest.raises(PredictingError, match=str(status)) as caught:
        asked.describe()
    assert type(caught.value) is (Away if error is Lost else error)
