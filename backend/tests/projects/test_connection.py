"""What is changed of a connection, by apply, and said by --diff before."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest

from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.records import StudioDown
from ls_yolo.projects import config, connection, fields, reconcile, state
from ls_yolo.projects.backend import ApplyError, Backend
from ls_yolo.projects.plan import State, plan
from ls_yolo.projects.reconcile import Reconciler
from ls_yolo.projects.secrets import Secrets

BACKEND = Backend("http://backend:9090", "u", "p")
ROW = {
    "id": 1, "url": "http://backend:9090/m/coco", "title": "coco@1", "auth_method": "BASIC_AUTH",
    "basic_auth_user": "u", "is_interactive": False, "state": "CO", "readable_state": "Connected",
    "model_version": "coco@1", "extra_params": None,
}  # fmt: skip


@pytest.fixture
def project(tmp_path):
    (tmp_path / "demo.yaml").write_text("title: Demo\nlabel_config: <View/>\nmodels: [coco]\n")
    (found,) = config.read(tmp_path / "demo.yaml")
    return found


def faults(row, project):
    return connection.faults(row, connection.settings(row, BACKEND, project))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"is_interactive": True}, []),  # people may want it
        ({"title": "what people see"}, []),
        ({"url": "http://backend:9090/m/ship"}, ["url would be 'http://backend:9090/m/coco'"]),
        ({"auth_method": "NONE"}, ["auth_method would be 'BASIC_AUTH'"]),
        ({"basic_auth_user": ""}, ["basic_auth_user would be 'u'"]),
        ({"state": "ER", "readable_state": "Error"}, ["its state is Error"]),
        ({"model_version": ""}, ["it has no version"]),
    ],
)
def test_what_differs_is_said_and_the_password_is_not(project, change, said):
    assert faults({**ROW, **change}, project) == said


def test_models_that_extra_params_name_are_as_good_as_those_of_the_url(project):
    for url in ("http://backend:9090", "http://backend:9090/"):
        row = {**ROW, "url": url, "extra_params": {"0": "coco"}}
        assert faults(row, project) == []
        assert faults({**row, "extra_params": {"0": "ship"}}, project) == [
            "url would be 'http://backend:9090/m/coco'"
        ]


def test_a_project_that_is_to_have_no_connection_is_left_without_one(besides, tmp_path):
    (tmp_path / "demo.yaml").write_text("title: Demo\nlabel_config: <View/>\nconnect: false\n")
    (apart,) = config.read(tmp_path / "demo.yaml")
    assert (apart.connect, apart.predict) == (False, False)
    found = State({**fields.DEFAULTS, "label_config": "<View/>", "models": None})
    assert plan(apart.named, found, state.KINDS) == []
    assert besides([], True, of=apart, show_collab_predictions=False) == []


def test_without_a_password_none_is_given(project):
    row = {**ROW, "auth_method": "NONE", "basic_auth_user": ""}
    wanted = connection.settings(row, Backend("http://backend:9090", "u", ""), project)
    assert connection.faults(row, wanted) == []
    assert "basic_auth_pass" not in wanted


@pytest.fixture
def besides(loopback, monkeypatch, tmp_path, project):
    """What --diff says beside the YAML of a project, of connections and a project as given."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = SimpleNamespace(rows=[], project={})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = found.rows if self.path.startswith("/api/ml") else found.project
            sent = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

    studio = Studio(f"http://127.0.0.1:{loopback(Handler).server_port}", "legacy")

    def ask(rows, relabelled=False, of=project, **shown):
        found.rows = rows
        usual = {"id": 1, "model_version": "coco@1", "show_collab_predictions": True}
        found.project = {**usual, **shown}
        reconciler = Reconciler(studio, BACKEND, tmp_path, print, Secrets({}))
        return reconciler._besides(1, of, relabelled)

    return ask


def test_a_diff_says_what_no_file_has_and_apply_would_change(besides):
    assert besides([ROW]) == []
    assert besides([{**ROW, "state": "ER"}]) == [
        "the connection would be repaired: its state is Connected"
    ]
    assert besides([ROW, {**ROW, "id": 2}]) == [
        "a second connection to http://backend:9090/m/coco would be removed"
    ]
    shown = ["people would be shown the predictions"]
    assert besides([ROW], show_collab_predictions=False) == shown
    assert besides([ROW], model_version="") == shown
    (line,) = besides([ROW], relabelled=True)
    assert line.startswith("predictions of the version that answers would be deleted")


def test_a_connection_that_is_deleted_takes_its_webhook_unless_another_has_it_too(
    loopback, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = {
        "ml": [{"id": 1, "url": "http://x.io/a/"}, {"id": 2, "url": "http://x.io/b"},
               {"id": 3, "url": "http://x.io/b"}],
        "webhooks": [{"id": 7, "url": "http://x.io/a/webhook"},
                     {"id": 8, "url": "http://x.io/b/webhook"}, {"id": 9, "url": "http://x.io/c"}],
    }  # fmt: skip
    deleted = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            sent = json.dumps(rows[self.path.split("/")[2].partition("?")[0]]).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def do_DELETE(self):
            deleted.append(self.path.strip("/"))
            self.send_response(204)
            self.end_headers()

    studio = Studio(f"http://127.0.0.1:{loopback(Handler).server_port}", "legacy")
    state._disconnect(studio, 5, 1)
    assert deleted == ["api/ml/1", "api/webhooks/7"]
    deleted.clear()
    state._disconnect(studio, 5, 2)
    assert deleted == ["api/ml/2"]


def test_a_storage_that_label_studio_answers_500_for_is_named():
    fields_ = {"type": "s3", "bucket": "ship", "prefix": ""}
    told = reconcile._told("source_storages", fields_)
    with pytest.raises(ApplyError, match=r"^storage s3://ship: 500: no; are its keys"), told:
        raise StudioDown("http://label-studio:8080/api/storages/s3/7: 500: no")
