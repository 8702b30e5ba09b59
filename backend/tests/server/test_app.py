"""The HTTP protocol, as Label Studio 1.23 speaks it."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from label_studio_sdk.label_interface import LabelInterface

from ls_yolo import SMALL_BODY
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import app, base
from ls_yolo.server import models as routes
from ls_yolo.serving.predictor import Predictor

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" model_score_threshold="0.2" model_path="">
    <Label value="person" background="red"/>
    <Label value="head" background="yellow"/>
  </RectangleLabels>
</View>"""
ROUTES = [
    ("GET", "/health"),
    ("GET", "/"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/versions"),
    ("POST", "/setup"),
    ("POST", "/predict"),
    ("POST", "/webhook"),
]
OPEN = {"/health", "/", "/livez", "/readyz"}
ANNOTATION = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}, "project": {"id": 1}}
TRAINING = {"action": "START_TRAINING", "project": {"id": 1}}


class LabelStudio:
    """What the backend asks Label Studio for: ML connections by project."""

    def __init__(self):
        self.rows = {}
        self.down = False

    def connections(self, project):
        if self.down:
            raise StudioError("connections of project 3: ConnectError")
        return self.rows.get(project, [])


@pytest.fixture
def label_studio():
    return LabelStudio()


@pytest.fixture
def models(make_registry, write_weights):
    write_weights("p.pt", {0: "person"}, boxes=[[20, 10, 120, 60, 0.9, 0]], fails=[33])
    write_weights("h.pt", {0: "head"}, boxes=[[0, 0, 50, 50, 0.8, 0]])
    return make_registry("person: {weights: p.pt}\nhead: {weights: h.pt}")


@pytest.fixture
def make(models, datasets, label_studio):
    """A client of a fresh process; every process has the same Label Studio."""

    def make(user="", password="", lifetime=30.0):
        predictor = Predictor(models, datasets, None, "http://label-studio:8080")
        return routes.build(
            predictor, ModelChoices(label_studio, lifetime), user, password, base.RequestLimiter(16)
        ).test_client()

    return make


@pytest.fixture
def client(make):
    return make()


@pytest.fixture
def ask(write_image):
    """The body of /predict as Label Studio sends it."""

    def ask(*images, project="3.1700000000", **more):
        tasks = [
            {"id": 100 + i, "data": {"image": url}, "annotations": [], "predictions": []}
            for i, url in enumerate(images or [write_image()])
        ]
        context = {"login": None, "password": None, "context": None}
        return {
            "tasks": tasks,
            "project": project,
            "label_config": CONFIG,
            "params": context,
        } | more

    return ask


def setup(client, path="/setup", **more):
    body = {
        "project": "3.1700000000",
        "schema": CONFIG,
        "hostname": "http://localhost:8080",
        "access_token": "hunter2",
        "extra_params": None,
    }
    return client.post(path, json=body | more)


def labels(answer):
    assert answer.status_code == 200, answer.text
    return [
        [region["value"]["rectanglelabels"][0] for region in result["result"]]
        for result in answer.json["results"]
    ]


# What is there


@pytest.mark.parametrize(
    "path", ["/health", "/", "/m/person/health", "/m/person+head/", "/m/head/"]
)
def test_health_says_up(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.json["status"] == "UP"


def test_readiness_names_the_versions_that_answer(client, models):
    def versions(path):
        return [row["version"] for row in client.get(path).json["models"]]

    assert versions("/readyz") == [model.version for model in models]
    assert versions("/m/head/readyz") == [models.get("head").version]


def test_an_unknown_path_and_method_are_said_to_be_so_in_json(client):
    answer = client.get("/nothing")
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
    answer = client.get("/predict")
    assert (answer.status_code, answer.mimetype) == (405, "application/json")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_model_that_is_not_there_is_404_with_a_hint(client, ask, method, path):
    answer = client.open(f"/m/persn{path}", method=method, json=ask(schema=CONFIG))
    if path in ("/livez", "/webhook"):  # neither has to do with a model
        assert answer.status_code == 200
        return
    assert answer.status_code == 404
    assert "no model is called 'persn'; did you mean 'person'?" in answer.json["error"]


@pytest.mark.parametrize("names", ["+", "person+", "+head"])
def test_an_empty_name_in_the_url_is_400(client, names):
    assert client.get(f"/m/{names}/health").status_code == 400


# Which model answers


def test_versions_of_setup_predict_and_versions_are_one(client, ask):
    for prefix in ("", "/m/person", "/m/head", "/m/head+person"):
        version = setup(client, f"{prefix}/setup").json["model_version"]
        answer = client.post(f"{prefix}/predict", json=ask())
        assert [result["model_version"] for result in answer.json["results"]] == [version]
        assert version in client.get(f"{prefix}/versions").json["versions"]
        assert ("+" in version) == ("+" in prefix)


def test_the_url_chooses_and_needs_no_setup(client, ask):
    assert labels(client.post("/predict", json=ask())) == [["person"]]
    assert labels(client.post("/m/head/predict", json=ask())) == [["head"]]
    assert labels(client.post("/m/person+head/predict", json=ask())) == [["person", "head"]]


@pytest.mark.parametrize("extra", [{"0": "head"}, '{"0": "head"}', ["head"], "head"])
def test_extra_params_of_setup_choose(client, ask, extra):
    assert setup(client, extra_params=extra).json["model_version"].startswith("head@")
    assert labels(client.post("/predict", json=ask())) == [["head"]]
    assert labels(client.post("/predict", json=ask(project="4.1700000000"))) == [["person"]]


def test_several_models_answer_together_as_in_the_reference_deployment(client, ask):
    setup(client, extra_params={"0": "person", "1": "head"})
    assert labels(client.post("/predict", json=ask())) == [["person", "head"]]


def test_the_choice_holds_in_a_process_that_never_saw_setup(make, ask, label_studio):
    label_studio.rows[3] = [{"url": "http://localhost", "extra_params": {"0": "head"}}]
    assert labels(make().post("/predict", json=ask())) == [["head"]]


def test_where_the_choice_cannot_be_known_nothing_is_guessed(make, ask, label_studio):
    label_studio.down = True
    fresh = make()
    answer = fresh.post("/predict", json=ask())
    assert answer.status_code == 503
    assert "connections of project 3" in answer.json["error"]
    assert labels(fresh.post("/m/head/predict", json=ask())) == [["head"]]


def test_a_choice_that_is_known_outlives_label_studio(make, ask, label_studio):
    client = make(lifetime=0)
    setup(client, extra_params=["head"])
    label_studio.down = True
    assert labels(client.post("/predict", json=ask())) == [["head"]]


@pytest.mark.parametrize("project", [None, "", "None", "x", 7, {}, "9" * 5000])
def test_a_request_without_a_usual_project_is_answered_by_the_default(client, ask, project):
    assert labels(client.post("/predict", json=ask(project=project))) == [["person"]]
    assert setup(client, project=project).status_code == 200


def test_extra_params_that_name_no_models_are_400_unless_the_url_chooses(client):
    answer = setup(client, extra_params={"conf": 0.3})
    assert answer.status_code == 400
    assert answer.json["error"].startswith("extra_params: found {'conf': 0.3}, expected names")
    assert setup(client, "/m/head/setup", extra_params={"conf": 0.3}).status_code == 200


def test_extra_params_with_an_unknown_model_are_404_with_a_hint(client):
    answer = setup(client, extra_params={"0": "haed"})
    assert answer.status_code == 404
    assert "did you mean 'head'?" in answer.json["error"]


def test_setup_without_a_configuration_answers_with_the_version(client):
    for schema in ("", None):
        answer = setup(client, "/m/head+person/setup", schema=schema)
        assert answer.json["model_version"].startswith("head@")


def test_setup_tells_the_labels_that_no_class_stands_for(client, caplog):
    answer = setup(client)
    assert answer.json["unmapped"] == {"label": {"head": "no class is called 'head'"}}
    assert "project 3: label 'head' of 'label'" in caplog.text


def test_the_log_has_the_labels_of_a_project_once_until_they_change(client, caplog):
    other = CONFIG.replace('"head"', '"hand"')
    for config, lines in ((CONFIG, 1), (CONFIG, 1), (other, 2), (CONFIG, 3)):
        setup(client, schema=config)
        assert caplog.text.count("no class is called") == lines
    setup(client, project="4.0")
    assert caplog.text.count("no class is called") == 4


def test_a_project_with_nothing_to_draw_yet_connects_and_the_log_says_once_what_it_waits_for(
    client, caplog
):
    for _ in range(2):
        answer = setup(client, schema="<View></View>")
        assert answer.status_code == 200
        assert answer.json["waiting"].startswith("controls: found none, expected one of Rectangle")
        assert answer.json["model_version"] == (
            f"waiting for something to draw: {answer.json['waiting']}"
        )
    assert caplog.text.count("project 3: waiting for something to draw: controls: found") == 1
    body = {"tasks": [{"data": {}}], "label_config": "<View></View>"}
    refused = client.post("/predict", json=body)
    assert refused.status_code == 400
    assert refused.json["error"].startswith("nothing to draw yet: controls: found none")


def test_setup_does_no_model_work(client, engine_calls):
    before = list(engine_calls)
    setup(client, "/m/person+head/setup")
    assert engine_calls == before


# Predictions


def test_one_answer_a_task_in_order_and_one_bad_task_spoils_no_other(client, ask, write_image):
    good, small = write_image("a.jpg", 200, 100), write_image("b.jpg", 150, 75)
    missing = "/data/local-files/?d=missing.jpg"
    answer = client.post("/predict", json=ask(good, missing, small, missing, good))
    assert labels(answer) == [["person"], [], ["person"], [], ["person"]]
    widths = [r["result"][0]["original_width"] for r in answer.json["results"] if r["result"]]
    assert widths == [200, 150, 200]


def test_label_studio_takes_every_answer_where_it_checks_strictly(client, ask):
    answer = client.post("/m/person+head/predict", json=ask())
    for prediction in answer.json["results"]:
        assert LabelInterface(CONFIG).validate_prediction(prediction, return_errors=True) == []


def test_250_tasks_of_one_request_are_answered(client, ask, write_image):
    answer = client.post("/predict", json=ask(*[write_image()] * 250))
    assert labels(answer) == [["person"]] * 250


def test_interactive_requests_with_context_are_answered(client, ask):
    body = ask(params={"login": None, "password": None, "context": {"result": [{"id": "x"}]}})
    body["tasks"][0]["drafts"] = []
    assert labels(client.post("/predict", json=body)) == [["person"]]


def test_an_engine_that_fails_for_every_task_is_500_with_a_reason(client, ask, write_image):
    bad = write_image("bad.jpg", width=33)
    answer = client.post("/predict", json=ask(bad, bad))
    assert answer.status_code == 500
    assert answer.json["error"].startswith("no task could be predicted: the engine failed")


def test_requests_at_the_same_time_use_a_model_one_at_a_time(client, ask, models, monkeypatch):
    batcher = models.get("person").batcher
    run, busy = batcher._engine.predict, threading.Lock()

    def alone(*arguments):
        assert busy.acquire(blocking=False), "two threads in one engine"
        try:
            return run(*arguments)
        finally:
            busy.release()

    monkeypatch.setattr(batcher._engine, "predict", alone)
    body, app = ask(), client.application
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(app.test_client().post, "/predict", json=body) for _ in range(24)]
        assert [labels(job.result()) for job in jobs] == [[["person"]]] * 24


@pytest.mark.parametrize(
    "config", ["<View></View>", "", "<View>", CONFIG.replace("person", "x").replace("head", "y")]
)
def test_a_configuration_that_cannot_be_answered_is_400_with_the_reason(client, ask, config):
    answer = client.post("/predict", json=ask(label_config=config))
    assert answer.status_code == 400
    assert "expected" in answer.json["error"] or "no label maps" in answer.json["error"]


# Malformed requests


@pytest.mark.parametrize("path", ["/setup", "/predict", "/m/head/predict"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(client, path, body):
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json["error"] == "expected a JSON object as the body"


@pytest.mark.parametrize("tasks", [None, {}, "x", 5, [None], [[]], ["x"], [{}, 5]])
def test_tasks_that_are_no_tasks_are_400(client, ask, tasks):
    answer = client.post("/predict", json=ask(tasks=tasks))
    assert answer.status_code == 400
    assert answer.json["error"] == "tasks: expected a list of tasks, each a JSON object"


@pytest.mark.parametrize("value", [5, {"a": 1}, ["x"]])
def test_a_configuration_that_is_no_text_is_400(client, ask, value):
    assert client.post("/predict", json=ask(label_config=value)).status_code == 400
    assert setup(client, schema=value).status_code == 400


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize("password", ["", "secret"])
def test_a_body_that_is_too_large_is_413(make, monkeypatch, path, password):
    monkeypatch.setattr(base, "MAX_BODY", 1000)
    client = make("user" if password else "", password)
    headers = basic("user", password) if password else {}
    body = {"action": "x", "tasks": ["x" * 2000]}
    answer = client.post(path, json=body, headers=headers)
    assert answer.status_code == 413


def test_a_body_of_unknown_length_that_is_too_large_is_413_too(make, monkeypatch):
    monkeypatch.setattr(base, "MAX_BODY", 1000)
    client = make()
    for size, status in ((999, 400), (1001, 413)):
        answer = client.post(
            "/predict",
            input_stream=io.BytesIO(b" " * size),
            content_type="application/json",
            headers={"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )
        assert answer.status_code == status


# Webhooks


@pytest.mark.parametrize("body", [ANNOTATION, {"action": "TASKS_CREATED"}, {}, [], "x"])
def test_webhooks_of_tasks_and_annotations_are_ignored(client, body):
    answer = client.post("/webhook", json=body)
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


def test_training_is_said_not_to_be_offered(client):
    assert client.post("/webhook", json=TRAINING).status_code == 501


# Authentication


def basic(user, password):
    both = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {both}"}


@pytest.mark.parametrize("prefix", ["", "/m/person"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_all_but_health_asks_for_user_and_password(make, ask, method, path, prefix):
    client = make("user", "pässword")
    body = TRAINING if path == "/webhook" else ask(schema=CONFIG)
    for headers in (
        {},
        basic("user", "wrong"),
        basic("wrong", "pässword"),
        basic("", ""),
        {"Authorization": "Bearer pässword".encode().decode("latin-1")},
        {"Authorization": "Basic %%%"},
    ):
        answer = client.open(prefix + path, method=method, json=body, headers=headers)
        assert answer.status_code == (200 if path in OPEN else 401)
        if path not in OPEN:
            assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    answer = client.open(prefix + path, method=method, json=body, headers=basic("user", "pässword"))
    assert answer.status_code == (501 if path == "/webhook" else 200)


@pytest.mark.parametrize("user", ["", "label-studio"])
def test_without_a_password_nobody_is_asked(make, ask, user):
    assert make(user, "").post("/predict", json=ask()).status_code == 200


def test_a_path_that_is_not_there_asks_too(make):
    assert make("user", "password").get("/nothing").status_code == 401


@pytest.mark.parametrize("prefix", ["", "/m/person"])
def test_webhooks_of_annotations_come_without_a_password_and_are_ignored(make, prefix):
    answer = make("user", "password").post(f"{prefix}/webhook", json=ANNOTATION)
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 100_000, json.dumps(TRAINING).encode() + b" " * SMALL_BODY]
)
def test_a_webhook_without_a_password_that_says_nothing_or_too_much_is_ignored(make, body):
    answer = make("user", "password").post("/webhook", data=body, content_type="application/json")
    assert (answer.status_code, answer.json) == (200, {"status": "ignored"})


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, TRAINING])
def test_training_with_a_wrong_password_is_refused(make, body):
    data = body if isinstance(body, bytes) else json.dumps(body)
    answer = make("user", "password").post(
        "/webhook", data=data, content_type="application/json", headers=basic("user", "wrong")
    )
    assert answer.status_code == 401


# Secrets


def test_no_token_of_a_request_is_logged_or_answered(make, ask, caplog):
    caplog.set_level(logging.DEBUG)
    client = make("user", "password")
    secret = {"access_token": "hunter2", "params": {"login": "l", "password": "hunter2"}}
    for path in ("/setup", "/predict", "/m/none/setup", "/webhook"):
        for config in (CONFIG, "<View>"):
            for headers in ({}, basic("user", "password"), basic("user", "hunter2")):
                body = ask(schema=config, **secret) | {"label_config": config}
                assert "hunter2" not in client.post(path, json=body, headers=headers).text
    assert "hunter2" not in caplog.text
    assert "aHVudGVyMg" not in caplog.text


def test_an_error_that_nobody_expected_says_nothing_of_the_inside(client, ask, monkeypatch, caplog):
    def fail(*arguments):
        raise KeyError("hunter2")

    monkeypatch.setattr(Predictor, "plan", fail)
    answer = client.post("/predict", json=ask())
    assert (answer.status_code, answer.json) == (
        500,
        {"error": "the backend failed; its log says why"},
    )


# Start


def test_the_application_is_made_as_the_environment_says(
    models, models_dir, datasets, monkeypatch, ask
):
    environ = {
        "MODEL_ROOT": str(models_dir),
        "MODELS_CONFIG": str(models_dir / "models.yaml"),
        "LOCAL_FILES_DOCUMENT_ROOT": str(datasets),
        "DEFAULT_MODEL": "head",
        "BASIC_AUTH_USER": "user",
        "BASIC_AUTH_PASS": "password",
        "LABEL_STUDIO_API_KEY": "",
        "LOG_LEVEL": "debug",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    client = app.create_app().test_client()
    assert not logging.getLogger("httpcore").isEnabledFor(logging.DEBUG), "headers hold tokens"
    assert client.post("/predict", json=ask()).status_code == 401
    answer = client.post("/predict", json=ask(), headers=basic("user", "password"))
    assert labels(answer) == [["head"]]
