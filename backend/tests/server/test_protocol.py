"""The HTTP protocol, as Label Studio 1.23 speaks it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.tests.server.label_studio import CONFIG, ROUTES, basic, labels, setup
from ls_yolo.server import app

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


def test_readiness_says_which_model_is_the_default(client):
    def marked(path):
        return {row["name"]: row["default"] for row in client.get(path).json["models"]}

    assert marked("/readyz") == {"person": True, "head": False}
    assert marked("/m/head/readyz") == {"head": False}


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
    assert answer.status == f"404 {answer.json['error']}"  # which Label Studio shows


def test_setup_without_a_configuration_answers_with_the_version(client):
    for schema in ("", None):
        answer = setup(client, "/m/head+person/setup", schema=schema)
        assert answer.json["model_version"].startswith("head@")


def test_setup_tells_the_labels_that_no_class_stands_for(client, caplog):
    answer = setup(client)
    assert answer.json["unmapped"] == {"label": {"head": "no class is called 'head'"}}
    assert answer.json["warnings"] == []
    assert "project 3: label 'head' of 'label'" in caplog.text


def test_setup_tells_what_label_studio_may_refuse(client, caplog):
    repeated = (
        '<View><Repeater on="$images"><Image name="i{{idx}}" value="$images[{{idx}}]"/>'
        '<RectangleLabels name="r{{idx}}" toName="i{{idx}}"><Label value="person"/>'
        "</RectangleLabels></Repeater></View>"
    )
    (said,) = setup(client, schema=repeated).json["warnings"]
    assert "Repeater" in said
    assert f"project 3: {said}" in caplog.text


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
        assert answer.json["waiting"].startswith("controls: found none, expected one of Bit")
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


def test_what_is_drawn_with_a_smart_tool_is_answered_with_the_object_that_is_meant(client, ask):
    box = {"x": 5, "y": 5, "width": 60, "height": 60, "rectanglelabels": ["person"]}
    drawn = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": box}
    body = ask(params={"login": None, "password": None, "context": {"result": [drawn]}})
    assert labels(client.post("/predict", json=body)) == [["person"]]
    drawn["value"] = box | {"rectanglelabels": ["head"]}  # which the model does not know
    assert labels(client.post("/predict", json=body)) == [[]]


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
