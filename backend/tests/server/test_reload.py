"""Models that change, over HTTP."""

from __future__ import annotations

import pytest

from backend.tests.server.label_studio import CONFIG
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import base
from ls_yolo.server import models as routes
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader

POLL = 0.02


@pytest.fixture
def client(models_dir, make_registry, write_weights, datasets):
    write_weights("a.pt", {0: "person"})
    (models_dir / "b.pt").write_text("{")
    found = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}", poll=POLL)
    predictor = Predictor(found, ImageReader(datasets, None, "http://ls:8080"))
    return routes.build(
        predictor, ModelChoices(None), "user", "password", base.RequestLimiter(16)
    ).test_client()


AUTH = {"auth": ("user", "password")}


def test_readiness_counts_models_and_tells_more_to_who_may_know(client):
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json) == (
        200,
        {"status": "ready", "loaded": 1, "failed": 1},
    )
    rows = client.get("/readyz", **AUTH).json["models"]
    assert [(row["name"], row["state"]) for row in rows] == [("a", "ready"), ("b", "failed")]
    assert "b.pt: cannot be loaded" in rows[1]["error"]


def test_readiness_of_a_model_that_failed_is_503(client):
    assert client.get("/m/a/readyz").status_code == 200
    assert client.get("/m/b/readyz").status_code == 503
    assert client.get("/m/c/readyz").status_code == 404


@pytest.mark.parametrize("path", ["predict", "setup"])
def test_a_model_that_failed_answers_503_with_the_reason(client, path):
    body = {"tasks": [], "label_config": CONFIG, "schema": CONFIG}
    answer = client.post(f"/m/b/{path}", json=body, **AUTH)
    assert answer.status_code == 503
    assert "b.pt: cannot be loaded" in answer.json["error"]
    assert client.post(f"/m/a/{path}", json=body, **AUTH).status_code == 200


def test_reload_takes_changes_before_it_answers(client, write_weights):
    assert client.post("/reload").status_code == 401
    write_weights("b.pt", {0: "person"})
    rows = client.post("/reload", **AUTH).json["models"]
    assert [row["state"] for row in rows] == ["ready", "ready"]
    assert client.get("/readyz").json == {"status": "ready", "loaded": 2, "failed": 0}
