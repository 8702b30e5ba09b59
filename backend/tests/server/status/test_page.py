"""The page: who gets it, what it lets a browser do, and what stands on it."""

from __future__ import annotations

import io
import logging
import re
import threading
from html.parser import HTMLParser

import pytest

from backend.tests.server.label_studio import CONFIG, basic
from backend.tests.server.status.conftest import HTML
from backend.tests.server.status.test_jobs import REPORT
from backend.tests.server.status.test_trying import jpeg
from ls_yolo import metrics
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.server import base, routes
from ls_yolo.server.status import page, projects
from ls_yolo.server.status.projects import Answer, Project


def words(answer):
    """What a person reads, each run of white space as one space."""

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.found = []

        def handle_data(self, data):
            self.found.append(data)

        def handle_starttag(self, tag, attributes):
            self.found.append(" " if tag in ("td", "th", "tr") else "")

    reader = Reader()
    reader.feed(answer.text)
    return " ".join("".join(reader.found).split())


# Who gets it


@pytest.mark.parametrize(
    "accept",
    [None, "*/*", "application/json", "application/json, text/plain, */*", "text/html;q=0.5, */*"],
)
def test_all_but_browsers_get_json_at_the_root(make, accept):
    client = make("user", "password")
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.json == {"status": "UP", "model_class": "ls-yolo"}


def test_a_browser_gets_the_page_once_it_has_said_the_password(make):
    client = make("user", "password")
    answer = client.get("/", headers=HTML)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert "person" not in answer.text
    answer = client.get("/", headers=HTML | basic("user", "password"))
    assert (answer.status_code, answer.mimetype) == (200, "text/html")
    assert client.get("/static/status.css").status_code == 401


def test_under_a_choice_of_models_there_is_no_page(client):
    assert client.get("/m/person/", headers=HTML).json["status"] == "UP"


def test_health_is_json_whatever_is_asked_for(client):
    assert client.get("/health", headers=HTML).json["status"] == "UP"


# What a browser may do


def test_the_page_allows_nothing_from_outside_and_nothing_inline(client):
    answer = client.get("/", headers=HTML)
    policy = dict(
        part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    # So there is none of what it forbids.
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*src=)", answer.text)
    assert not re.search(r"(?:src|href|action)=\"(?!/|#|data:)", answer.text)


@pytest.mark.parametrize("name", ["status.css", "status.js"])
def test_its_script_and_style_ask_nothing_of_others(client, name):
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 200
    assert "//" not in re.sub(r"(?m)(^|\s)// .*$", "", answer.text)


def image():
    return {"image": (io.BytesIO(jpeg()), "a.jpg")}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/try", "/jobs", "/predict", "/reload", "/m/person/setup"])
def test_what_a_page_of_another_site_posts_is_refused(make, headers, path):
    client = make("user", "password")
    answer = client.post(path, data=image(), headers=headers | basic("user", "password"))
    assert answer.status_code == 403
    assert "expected one of http://localhost/" in answer.json["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost"},  # a proxy speaks TLS for it
    ],
)
def test_what_its_own_page_or_a_program_posts_is_taken(client, headers):
    assert client.post("/try", data=image(), headers=headers).status_code == 200


def test_what_others_link_to_is_still_read(client):
    assert client.get("/", headers=HTML | {"Sec-Fetch-Site": "cross-site"}).status_code == 200


# What stands on it


def test_models_have_version_engine_state_and_rate(client, board, registry, clock):
    clock.now += 10
    board.history.look()
    metrics.IMAGES.labels("person").inc(25)
    clock.now += 10
    board.history.look()
    text = words(client.get("/", headers=HTML))
    assert registry.version("person") in text
    assert "fake, cpu" in text
    assert "3 of 3 models loaded" in text
    assert "1.2 images a second of late" in text


def test_a_model_that_failed_says_why(client, registry, models_dir):
    (models_dir / "models.yaml").write_text("person: {weights: p.pt}\nlost: {weights: no.pt}")
    registry.refresh(5)
    text = words(client.get("/", headers=HTML))
    assert "1 failed" in text
    assert "no.pt" in text


def test_bulk_work_has_progress_rate_time_left_and_failures(client, clock):
    text = words(client.get("/", headers=HTML))
    assert "None in the last ten minutes" in text
    client.post("/jobs", json=REPORT)
    answer = client.get("/", headers=HTML)
    text = words(answer)
    assert "Ships (3), shard 1/4 running" in text
    assert "250 of 1,000 tasks, 50 failed, 35 a second, 20 s left" in text
    assert '<progress max="1000" value="300"' in answer.text
    clock.now += 120
    assert "silent" in (text := words(client.get("/", headers=HTML)))
    assert "last heard of 2 min ago: run the same command again, it goes on" in text


def test_what_others_say_is_text_and_never_markup(client, board):
    evil = "<script>alert(1)</script>"
    client.post("/jobs", json=REPORT | {"title": evil, "host": evil, "version": evil})
    board.errors.handle(logging.makeLogRecord({"levelno": 40, "levelname": "ERROR", "msg": evil}))
    answer = client.get("/", headers=HTML)
    assert evil not in answer.text
    assert words(answer).count(evil) == 4


def test_errors_have_their_fix(client, board, write_image):
    handler = logging.getLogger("ls_yolo")
    handler.addHandler(board.errors)
    try:
        task = {"id": 7, "data": {"image": "/data/local-files/?d=demo/lost.jpg"}}
        answer = client.post("/predict", json={"tasks": [task], "label_config": CONFIG})
    finally:
        handler.removeHandler(board.errors)
    assert answer.status_code == 200
    text = words(client.get("/", headers=HTML))
    assert "task 7: empty prediction: 'demo/lost.jpg': not found in" in text
    assert "Fix: put the file back where the task says, or delete the task" in text


def test_the_last_hour_is_drawn(client, board, clock):
    for _ in range(3):
        metrics.IMAGES.labels("person").inc(20)
        clock.now += 10
        board.history.look()
    # The page's own time is the real one.
    answer = client.get("/", headers=HTML)
    assert answer.text.count('<svg viewBox="0 0 360 116"') == 3
    assert "Images a second" in words(answer)


def test_without_a_token_projects_say_what_is_missing(client):
    assert "LABEL_STUDIO_API_KEY: found nothing" in words(client.get("/", headers=HTML))


def test_a_class_of_ones_own_has_a_page_without_a_form_to_try():
    class Own:
        name = "Own"

        def status(self, models=()):
            row = {"name": "Own", "state": "ready", "version": "1", "error": ""}
            return {"config": "", "error": "", "models": [row]}

    client = routes.build(Own(), "", "", base.RequestLimiter(16)).test_client()
    answer = client.get("/", headers=HTML)
    assert answer.status_code == 200
    assert "try-form" not in answer.text
    answer = client.post("/try", data=image())
    assert (answer.status_code, "MODEL_CLASS" in answer.json["error"]) == (400, True)


# Projects


MANY = Project(1, "Ships", CONFIG, ("person",), True, 12)


def test_projects_show_how_their_labels_map(client, board, monkeypatch):
    monkeypatch.setattr(board.projects, "_ask", lambda: Answer([MANY], 1.0, "", 3))
    text = words(client.get("/", headers=HTML))
    assert "Ships (1) 12 tasks; person" in text
    assert "label (RectangleLabels), person Label Classes person person" in text
    assert "head no class is called" in text
    assert "3 older projects are not shown" in text


def rows(registry):
    return registry.status()["models"]


def test_a_project_without_a_connection_is_shown_without_a_mapping(registry):
    (one,) = projects.shown([Project(1, "A", CONFIG)], rows(registry))
    assert (one.controls, one.fault) == ((), "")


@pytest.mark.parametrize(
    ("project", "says"),
    [
        (Project(1, "A", CONFIG, ("persn",), True), "no model is called 'persn'; did you mean"),
        (Project(1, "A", "<View>", ("person",), True), ""),
        (Project(1, "A", CONFIG, (), True, 0, "extra_params: found 1"), "extra_params: found 1"),
    ],
)
def test_what_cannot_be_mapped_says_why(registry, project, says):
    (one,) = projects.shown([project], rows(registry))
    assert one.controls == ()
    assert one.fault
    assert says in one.fault


def test_connections_that_name_no_model_are_mapped_by_the_default(registry):
    (one,) = projects.shown([Project(1, "A", CONFIG, (), True)], rows(registry), "person")
    assert one.controls[0].models == ("person",)
    assert list(one.controls[0].mapped) == ["person"]


def test_a_slow_label_studio_holds_up_no_page(monkeypatch):
    monkeypatch.setattr(projects, "PATIENCE", 0.05)
    go = threading.Event()

    def ask():
        assert go.wait(10)
        return Answer([MANY], 1.0)

    made = projects.Projects(ask)
    assert made.get().fault.startswith("Label Studio has not answered yet")
    go.set()
    made._asking.join(10)
    assert made.get().projects == [MANY]


def test_what_label_studio_said_last_stays_with_why_there_is_nothing_newer(monkeypatch):
    monkeypatch.setattr(projects, "LIFETIME", 0.0)
    answers = iter([lambda: Answer([MANY], 1.0)])

    def ask():
        try:
            return next(answers)()
        except StopIteration:
            raise StudioError("projects: unavailable") from None

    made = projects.Projects(ask)
    made.get()
    made.get()
    if made._asking:
        made._asking.join(10)
    found = made.get()
    assert (found.projects, found.fault) == ([MANY], "projects: unavailable")


def test_answers_hold_for_a_while_and_are_asked_for_by_one_at_a_time():
    calls = []

    def ask():
        calls.append(1)
        return Answer([], 1.0)

    made = projects.Projects(ask)
    for _ in range(5):
        made.get()
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("description", "parts"),
    [
        ("torch 2.10.0 on cuda:0, half precision", ("torch 2.10.0", "cuda:0, half precision")),
        ("openvino 2026.4.1, f16, 2 cores", ("openvino 2026.4.1, f16", "CPU, 2 cores")),
        ("torch 2 on cpu; no export: full on /", ("torch 2; no export: full on /", "cpu")),
        ("something else", ("something else", "")),
        ("", ("", "")),
    ],
)
def test_engine_and_device_are_told_apart(description, parts):
    assert page.engine_and_device(description) == parts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (7300, "2 h 1 min")],
)  # fmt: skip
def test_times_are_in_one_unit_or_two(seconds, text):
    assert page.duration(seconds) == text


def test_labels_are_mapped_once_for_the_same_models_and_anew_for_others(registry, monkeypatch):
    mapped = []

    def mapping(config, models, known, default):
        mapped.append(known)
        raise projects.MappingError("found nothing")

    monkeypatch.setattr(projects, "mapping", mapping)
    projects._mapped.cache_clear()
    found = rows(registry)
    for _ in range(3):
        (one,) = projects.shown([Project(1, "A", CONFIG, (), True)], found)
        assert one.fault == "found nothing"
    assert len(mapped) == 1
    projects.shown([Project(1, "A", CONFIG, (), True)], [{**found[0], "version": "new"}])
    projects.shown([Project(1, "A", CONFIG, ("head",), True)], found)
    assert len(mapped) == 3
    projects._mapped.cache_clear()
