"""`ls-yolo prelabel`: what it makes of services that fail, and where it writes."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
import typer
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.cli import main, prelabel
from ls_yolo.cli.common import ToolError
from ls_yolo.jobs.pipeline import Changed
from ls_yolo.jobs.predicting import (
    Answer,
    Away,
    Busy,
    Described,
    Lost,
    PredictingError,
    Target,
)
from ls_yolo.jobs.prelabel import Options, Summary
from ls_yolo.jobs.waiting import Stopped
from ls_yolo.labelstudio import display
from ls_yolo.labelstudio.bulk import Counts, Page, StudioDown, Task
from ls_yolo.labelstudio.client import Studio, StudioError, TokenError
from ls_yolo.labelstudio.lookup import NoProject, find_project
from ls_yolo.projects.apply import check_token
from ls_yolo.projects.backend import NotReady


def test_services_that_do_not_come_back_are_waited_for_so_long(monkeypatch):
    monkeypatch.setattr(prelabel, "READY_SECONDS", 0.1)
    with pytest.raises(Away, match=r"/health: not ready after 0\.1 s"):
        prelabel._ready(Studio("http://127.0.0.1:1", "legacy"), None)()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StudioDown("away"), 75),
        (Away("refused"), 75),
        (Busy("full"), 75),
        (Changed("m@2"), 75),
        (NotReady("not ready"), 75),
        (Stopped("away"), 75),
        (httpx.ConnectError("refused"), 75),
        (ApiError(status_code=503), 75),
        (ApiError(status_code=400), 1),
        (NoProject("no such project"), 75),
        (StudioError("two such projects"), 1),
        (Lost("gone"), 1),
        (TokenError("no"), 77),
    ],
)
def test_what_another_try_later_may_mend_ends_with_75(error, code):
    with pytest.raises(ToolError) as caught, prelabel.refused():
        raise error
    assert caught.value.code == code


def of_projects(status, content):
    """A Label Studio whose projects are asked for with this answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


TWINS = [{"id": 1, "title": "Yard"}, {"id": 2, "title": "Yard"}]


@pytest.mark.parametrize("ask", [check_token, lambda studio: studio.connections(5)])
@pytest.mark.parametrize(("answer", "code"), [((503, {}), 75), (None, 75), ((400, {}), 1)])
def test_a_label_studio_that_is_away_at_the_start_is_worth_another_try(
    ask, answer, code, loopback, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the SDK waits before each try
    port = loopback(of_projects(*answer)).server_port if answer else 1
    with pytest.raises(ToolError) as caught, prelabel.refused():
        ask(Studio(f"http://127.0.0.1:{port}", "legacy"))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [((200, {"results": []}), 75), ((503, {}), 75), (None, 75), ((200, {"results": TWINS}), 1)],
    ids=["no such project", "busy", "away", "two such projects"],
)
def test_a_project_that_setup_may_be_about_to_make_is_worth_another_try(
    answer, code, loopback, monkeypatch
):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the SDK waits before each try
    port = loopback(of_projects(*answer)).server_port if answer else 1
    with pytest.raises(ToolError) as caught, prelabel.refused():
        find_project(Studio(f"http://127.0.0.1:{port}", "legacy"), "Yard")
    assert caught.value.code == code


class Store:
    """Three tasks without a prediction."""

    def count(self, *words, **more):
        return Counts(3, 3, 0)

    def highest(self, project):
        return 3

    def versions(self, project):
        return []

    def missing(self, project, version, *, after, **more):
        return Page([] if after > 2 else [Task(after + 1, {})], after + 1)


class Model:
    """Cannot predict a task; then there is nothing that could."""

    asked = False

    def __init__(self, waiting=""):
        self.waiting = waiting

    def describe(self):
        return Described("m@1", self.waiting)

    def predict(self, tasks):
        if not self.asked:
            self.asked = True
            return [Answer([], "m@1", "damaged") for _ in tasks]
        raise PredictingError("the models are gone")


@pytest.fixture
def predict(monkeypatch, tmp_path, loopback):
    """Predicts a project; ``told``: what the status page is told."""
    told = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = f"http://127.0.0.1:{loopback(Handler).server_port}"
    values = {"BACKEND_URL": url, "BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}
    monkeypatch.setattr(display, "begin", lambda *words: None)
    monkeypatch.setattr(prelabel, "_pictures", lambda *words: lambda task: None)

    def predict(wishes, model, **options):
        monkeypatch.setattr(prelabel, "_predicting", lambda *words: model)
        studio = Studio("http://127.0.0.1:1", "legacy")
        target = Target(5, "Demo", "<View/>")
        more = Options(folder=tmp_path / "models", **options)
        return prelabel.predict(studio, Store(), target, more, wishes, values)

    predict.told = told
    return predict


def test_a_run_that_ends_early_leaves_its_report_and_tells_the_status_page(predict, tmp_path):
    file = tmp_path / "report.json"
    with pytest.raises(PredictingError, match="the models are gone"):
        predict(prelabel.Wishes(report=str(file)), Model(), shard=(1, 2))
    assert json.loads(file.read_text())["tasks"]["failed"] == 1
    last = predict.told[-1]
    assert (last["state"], last["project"], last["version"]) == ("failed", 5, "m@1")
    assert (last["done"], last["total"], last["shard"]) == (0, 3, "1/2")


@pytest.mark.parametrize("shown", ["m@0", "m@1", ""])
def test_a_shard_after_which_the_old_version_is_still_shown_says_so(monkeypatch, capsys, shown):
    monkeypatch.setattr(display, "look", lambda *words: display.Display(shown, True, {}))
    options, wishes = Options(shard=(0, 2)), prelabel.Wishes()
    target, summary = Target(5, "Demo", "<View/>"), Summary(3, stored=3)
    assert prelabel._end(None, None, target, "m@1", options, wishes, summary, 2) == 0
    said = (
        "Demo: shows m@0 still: 2 tasks lack m@1; "
        "ls-yolo predictions rollback 5 --to m@1 shows it all the same"
    )
    assert (said in capsys.readouterr().out) == (shown == "m@0")


def test_a_backend_that_restarts_at_the_very_beginning_is_waited_for(predict, capsys):
    class Restarting(Model):
        tries = 0

        def describe(self):
            self.tries += 1
            if self.tries < 3:
                raise Away("the backend answered 503: not ready")
            return Described("m@1", "no label yet")

    model = Restarting()
    predict(prelabel.Wishes(), model)
    assert model.tries == 3
    said = "waiting for the backend: the backend answered 503: not ready"
    assert capsys.readouterr().out.count(said) == 1


def test_where_nothing_predicts_yet_the_code_says_so(predict):
    assert predict(prelabel.Wishes(), Model("waiting for labels")) == 69
    assert predict.told == []


def test_a_dry_run_makes_no_file(predict, tmp_path, capsys):
    assert predict(prelabel.Wishes(dry_run=True), Model()) == 0
    assert (
        "Demo: 3 tasks, 3 without a prediction of m@1; nothing was done" in capsys.readouterr().out
    )
    assert not (tmp_path / "models").exists()
    assert predict.told == []


def test_a_report_on_standard_output_is_alone_there(monkeypatch, capsys):
    """The command's own words for people, and those of what it calls, are on standard error."""

    def services(*words):
        print("waiting for it")

    def run(studio, store, target, options, wishes, values):
        print("Demo: warning")
        print("{}", file=wishes.out)
        return 0

    class Found:
        id, title, label_config, created_at = 5, "Demo", "<View/>", ""

    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "legacy")
    monkeypatch.setattr("ls_yolo.projects.backend.wait", services)
    monkeypatch.setattr("ls_yolo.projects.apply.check_token", services)
    monkeypatch.setattr("ls_yolo.labelstudio.lookup.find_project", lambda *words: Found)
    monkeypatch.setattr("ls_yolo.labelstudio.bulk.store_of", lambda studio: None)
    monkeypatch.setattr(prelabel, "predict", run)
    monkeypatch.setattr("signal.signal", lambda *words: None)
    assert main.main(["prelabel", "Demo", "--model", "coco", "--report", "-"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "{}\n"
    assert "waiting for it" in shown.err and "Demo: warning" in shown.err


@pytest.mark.parametrize("target", ["metrics.txt", "http://", "ftp://host"])
def test_metrics_that_can_never_be_told_end_the_command_before_anything_is_done(predict, target):
    with pytest.raises(typer.BadParameter, match=r"--metrics: found .*expected"):
        predict(prelabel.Wishes(metrics=target), Model())
