"""What runs the backend: the command line, the health check, gunicorn's settings."""

from __future__ import annotations

import importlib
import json
import sys
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import httpx
import pytest

from ls_yolo.cli import apply, main
from ls_yolo.cli.common import TokenRefused, ToolError
from ls_yolo.cli.prelabel import Again
from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects import config
from ls_yolo.projects.apply import Applier
from ls_yolo.projects.backend import ApplyError, Backend, wait
from ls_yolo.server import healthcheck

PROJECT = "title: Demo\nlabel_config: <View/>\n"


@pytest.fixture
def serve(monkeypatch, loopback):
    """Starts a server on loopback that answers everything with ``status``; returns its port."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def serve(status, body=b"{}"):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.rfile.read(int(self.headers["Content-Length"] or 0))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

        return loopback(Handler).server_port

    return serve


@pytest.mark.parametrize(("status", "code"), [(200, 0), (404, 1), (500, 1), (503, 1)])
def test_the_health_check_passes_where_the_backend_is_ready(serve, monkeypatch, status, code):
    monkeypatch.setenv("PORT", str(serve(status)))
    assert healthcheck.main() == code


def test_the_health_check_fails_where_nobody_listens(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "1")
    assert healthcheck.main() == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: ab\n", "demo.yaml:1: title: found 'ab', expected the project's title"),
        (None, "demo.yaml: not found; expected a YAML file there"),
    ],
)
def test_a_project_file_that_cannot_be_used_ends_with_78_before_anything_is_asked(
    tmp_path, capsys, text, message
):
    if text:
        (tmp_path / "demo.yaml").write_text(text)
    assert main.main(["apply", str(tmp_path / "demo.yaml")]) == 78
    assert message in capsys.readouterr().err


def test_a_setting_that_cannot_be_used_ends_with_78(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SETUP_TIMEOUT", "soon")
    assert main.main(["apply", str(tmp_path)]) == 78
    assert capsys.readouterr().err == (
        "error: SETUP_TIMEOUT: found 'soon', expected a whole number\n"
    )


def test_a_token_that_is_not_taken_ends_with_77_and_is_not_shown(
    tmp_path, monkeypatch, capsys, serve
):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    refusing = serve(401, b'{"detail": "Invalid token."}')
    monkeypatch.setattr("ls_yolo.projects.backend.wait", lambda *args: None)
    monkeypatch.setenv("LABEL_STUDIO_URL", f"http://127.0.0.1:{refusing}")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "hunter2")
    assert main.main(["apply", str(tmp_path)]) == 77
    shown = capsys.readouterr()
    assert "does not take LABEL_STUDIO_API_KEY (401: Invalid token.)" in shown.err
    assert "hunter2" not in shown.out + shown.err


@pytest.mark.parametrize(("status", "code"), [(None, 75), (500, 75), (404, 1)])
def test_a_label_studio_that_fails_meanwhile_is_told_in_one_line(
    tmp_path, monkeypatch, capsys, serve, status, code
):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    monkeypatch.setattr("ls_yolo.projects.backend.wait", lambda *args: None)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the SDK's retries
    port = serve(status) if status else 1
    monkeypatch.setenv("LABEL_STUDIO_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "legacy")
    assert main.main(["apply", str(tmp_path)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Label Studio: ")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([Again("replaced")] * 3, 75),
        ([TokenRefused("no")], 77),
        ([ToolError("found no task")], 1),
    ],
)
def test_the_exit_code_says_what_kept_a_project_from_being_predicted(
    tmp_path, monkeypatch, errors, code
):
    (tmp_path / "demo.yaml").write_text(PROJECT + "predict: true\n")
    made = SimpleNamespace(waiting="")

    def predict(*words):
        raise errors.pop(0)

    monkeypatch.setattr("ls_yolo.projects.backend.wait", lambda *words: None)
    monkeypatch.setattr("ls_yolo.projects.apply.check_token", lambda studio: "")
    monkeypatch.setattr(Backend, "reload", lambda self: {})
    monkeypatch.setattr(Applier, "apply", lambda self, project, prune: made)
    monkeypatch.setattr("ls_yolo.labelstudio.bulk.store_of", lambda studio: None)
    monkeypatch.setattr(apply, "_predict", predict)
    assert main.main(["apply", str(tmp_path)]) == code
    assert errors == []


def test_services_that_are_not_ready_end_setup_with_75(tmp_path, monkeypatch):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("SETUP_TIMEOUT", "1")
    assert main.main(["apply", str(tmp_path)]) == 75


def test_a_service_that_never_gets_ready_is_named(serve):
    with pytest.raises(ApplyError, match=r"not ready after 0 s \(status 503\); see the log"):
        wait(f"http://127.0.0.1:{serve(503)}/readyz", 0, lambda text: None)
    with pytest.raises(ApplyError, match=r"not ready after 0 s \(ConnectError"):
        wait("http://127.0.0.1:1/readyz", 0, lambda text: None)


def test_a_service_that_is_ready_is_not_waited_for(serve):
    said = []
    wait(f"http://127.0.0.1:{serve(200)}/readyz", 0, said.append)
    assert said == []


def test_the_models_are_in_the_path_of_the_address():
    backend = Backend("http://backend:9090/", "u", "p")
    assert backend.address([]) == "http://backend:9090"
    assert backend.address(["a"]) == "http://backend:9090/m/a"
    assert backend.address(["a", "b"]) == "http://backend:9090/m/a+b"


@pytest.mark.parametrize("body", [b'{"error": "no such model"}', b"no such model"])
def test_what_the_backend_refuses_is_passed_on(serve, body):
    backend = Backend(f"http://127.0.0.1:{serve(404, body)}", "", "")
    with pytest.raises(ApplyError, match="/m/x/setup answered 404: no such model"):
        backend.ask(["x"], "setup", {})


def busy(monkeypatch, times):
    """A backend that has no time so many times; a second goes by each time that one waits."""
    answers = [429] * times + [200]
    clock = iter(range(1000))
    monkeypatch.setattr("ls_yolo.projects.backend.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("ls_yolo.projects.backend.time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        "ls_yolo.projects.backend.httpx.post",
        lambda *words, **more: httpx.Response(answers.pop(0), json={"error": "busy"}),
    )
    return Backend("http://backend:9090", "", "")


def test_a_backend_that_is_busy_is_asked_again(monkeypatch):
    assert busy(monkeypatch, 30).ask(["x"], "setup", {}) == {"error": "busy"}


def test_a_backend_that_stays_busy_is_told(monkeypatch):
    with pytest.raises(ApplyError, match="/m/x/setup answered 429: busy"):
        busy(monkeypatch, 100).ask(["x"], "setup", {})


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b""])
def test_what_answers_without_json_is_not_the_backend(serve, body):
    backend = Backend(f"http://127.0.0.1:{serve(200, body)}", "", "")
    with pytest.raises(ApplyError, match="/setup answered 200: "):
        backend.ask([], "setup", {})


def reload(serve, body, status=200):
    return Backend(f"http://127.0.0.1:{serve(status, json.dumps(body).encode())}", "", "").reload()


def test_models_that_could_not_be_taken_are_told_by_name(serve):
    models = [{"name": "a", "error": ""}, {"name": "b", "error": "b.pt: cannot be loaded"}]
    assert reload(serve, {"error": "", "models": models}) == {"b": "b.pt: cannot be loaded"}


def test_a_models_yaml_that_could_not_be_taken_stops_setup(serve):
    with pytest.raises(ApplyError, match=r"^models\.yaml:1: empty; the backend's models are still"):
        reload(serve, {"error": "models.yaml:1: empty", "models": []})


def test_a_backend_that_refuses_to_take_changes_is_an_error(serve):
    with pytest.raises(ApplyError, match="/reload answered 401: no"):
        reload(serve, {"error": "no"}, 401)


def test_a_project_whose_new_model_cannot_be_used_is_not_predicted_with_the_old_one(
    serve, tmp_path
):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    (project,) = config.read(tmp_path / "demo.yaml")
    body = json.dumps({"model_version": "a@1+b@2", "unmapped": {}}).encode()
    backend = Backend(f"http://127.0.0.1:{serve(200, body)}", "", "")
    studio = Studio("http://127.0.0.1:1", "legacy")
    faults = {"b": "b.pt: cannot be loaded", "c": "no"}
    applier = Applier(studio, backend, tmp_path, print, faults)
    with pytest.raises(ApplyError, match=r"Demo: the backend still answers with a@1\+b@2.*: b\.pt"):
        applier.apply(project)


def test_what_the_backend_warns_of_is_told_as_it_says_it(serve, tmp_path):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    (project,) = config.read(tmp_path / "demo.yaml")
    answer = {
        "model_version": "a@1",
        "unmapped": {"label": {"tug": "no class is called 'tug'"}},
        "warnings": ["KeyPointLabels 'k': boxes of 'arrow' are left out"],
    }
    backend = Backend(f"http://127.0.0.1:{serve(200, json.dumps(answer).encode())}", "", "")
    said: list[str] = []
    applier = Applier(Studio("http://127.0.0.1:1", "legacy"), backend, tmp_path, said.append)
    applier._check_labels(project)
    assert said == [
        "Demo: warning: label: no class is called 'tug'; the label stays for people to use",
        "Demo: warning: KeyPointLabels 'k': boxes of 'arrow' are left out",
    ]


def test_what_apply_says_has_no_secret(tmp_path):
    said: list[str] = []
    studio = Studio("http://127.0.0.1:1", "legacy")
    environment = {"A": "hunter2"}
    applier = Applier(studio, Backend("", "", ""), tmp_path, said.append, {}, environment)
    applier._secrets.get("${A}")
    applier._reconciler._say("found hunter2")
    applier._say("found hunter2")
    assert said == ["found (hidden)"] * 2


def test_the_file_of_secrets_cannot_say_what_ls_yolo_is_started_with(tmp_path, monkeypatch, capsys):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    monkeypatch.setenv("PROJECT_SECRETS", "S3_KEY=a\nLABEL_STUDIO_API_KEY=hunter2\n")
    assert main.main(["apply", str(tmp_path)]) == 78
    message = "secrets.env:2: LABEL_STUDIO_API_KEY is a setting of ls-yolo"
    assert message in capsys.readouterr().err


def test_what_ls_yolo_is_started_with_is_no_secret_of_a_project(tmp_path, monkeypatch):
    (tmp_path / "demo.yaml").write_text(PROJECT)
    monkeypatch.setattr("ls_yolo.projects.backend.wait", lambda *args: None)
    monkeypatch.setattr("ls_yolo.projects.apply.check_token", lambda studio: "")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "legacy")
    monkeypatch.setenv("HOOK", "of the environment")
    monkeypatch.setenv("PROJECT_SECRETS", "S3_KEY=of the file\n")
    seen: list[str | None] = []

    def diff(self, project, prune):
        names = ("HOOK", "S3_KEY", "LABEL_STUDIO_API_KEY", "PROJECT_SECRETS")
        seen.extend(self._secrets.get(f"${{{name}}}") for name in names)
        return ""

    monkeypatch.setattr(Applier, "diff", diff)
    assert main.main(["apply", "--diff", str(tmp_path)]) == 0
    assert seen == ["of the environment", "of the file", None, None]


@pytest.fixture
def gunicorn(monkeypatch):
    monkeypatch.setenv("THREADS", "4")
    monkeypatch.delitem(sys.modules, "ls_yolo.server.gunicorn_conf", raising=False)
    return importlib.import_module("ls_yolo.server.gunicorn_conf")


def test_gunicorn_runs_one_process_with_threads_that_is_not_preloaded(gunicorn):
    assert gunicorn.bind == "0.0.0.0:9090"
    assert (gunicorn.workers, gunicorn.threads, gunicorn.preload_app) == (1, 4, False)


def test_gunicorn_does_not_start_with_a_models_yaml_that_cannot_be_used(
    gunicorn, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(gunicorn._values, "MODELS_CONFIG", str(tmp_path / "models.yaml"))
    with pytest.raises(SystemExit) as caught:
        gunicorn.on_starting(None)
    assert caught.value.code == 78
    assert "models.yaml: not found" in capsys.readouterr().err


def test_gunicorn_does_not_start_with_a_setting_that_cannot_be_used(monkeypatch, capsys):
    monkeypatch.setenv("THREADS", "many")
    monkeypatch.delitem(sys.modules, "ls_yolo.server.gunicorn_conf", raising=False)
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("ls_yolo.server.gunicorn_conf")
    assert caught.value.code == 78
    assert capsys.readouterr().err == "THREADS: found 'many', expected a whole number\n"


@pytest.mark.parametrize(
    ("version", "waiting", "said"),
    [
        ("a@1", "", []),
        ("waiting for something to draw: no control", "no control",
         ["Demo: warning: waiting for something to draw: no control; no task is predicted until "
          "then"]),
        ("smart@1", "smart@1 answers clicks alone",
         ["Demo: warning: smart@1 answers clicks alone; no task is predicted until then"]),
    ],
)  # fmt: skip
def test_where_nothing_can_be_predicted_yet_setup_says_why(tmp_path, version, waiting, said):
    path, told = tmp_path / "demo.yaml", []
    path.write_text(PROJECT)
    (project,) = config.read(path)

    class Answers:
        def ask(self, models, path, body):
            return {"model_version": version, "waiting": waiting, "unmapped": {}}

    class Nothing:
        client = None

    applier = Applier(Nothing(), Answers(), tmp_path, told.append)
    assert applier._check_labels(project) == (version, waiting)
    assert told == said
