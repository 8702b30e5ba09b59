"""The service against its own description: whatever is sent, no fault of the server's."""

from __future__ import annotations

import re
import sys

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ls_yolo.images.web import Web
from ls_yolo.labelstudio.connections import ConnectionCache, ModelChoices
from ls_yolo.server import base, models, openapi, user_model
from ls_yolo.serving.predictor import Predictor
from ls_yolo.user_model import runner

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


MODEL_PY = """
from label_studio_ml.model import LabelStudioMLBase

class Described(LabelStudioMLBase):
    def predict(self, tasks, context=None, **kwargs):
        return [[{"result": []}] * 2 for _ in tasks]

    def fit(self, event, data, **kwargs):
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The application that serves a class of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "kept"))
    monkeypatch.delitem(sys.modules, "described", raising=False)
    (tmp_path / "described.py").write_text(MODEL_PY)
    made = runner.ModelRunner("described:Described", tmp_path, tmp_path, None, Web(False))
    return user_model.build(
        made, ConnectionCache(None, user_model.parameters), "", "", base.RequestLimiter(16)
    )


@pytest.fixture
def usual(make_registry, write_weights, datasets):
    """The application that serves models.yaml."""
    write_weights("p.pt", {0: "person"}, boxes=[[20, 10, 120, 60, 0.9, 0]])
    predictor = Predictor(make_registry("person: {weights: p.pt}"), datasets, None, "http://ls")
    return models.build(predictor, ModelChoices(None), "", "", base.RequestLimiter(16))


@pytest.fixture(params=["usual", "own"])
def app(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def api(app):
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


@pytest.mark.parametrize(
    ("path", "method"),
    [(p, m) for p, methods in openapi.PATHS.items() for m in methods]
    + [("/m/{models}/predict", "post"), ("/m/{models}/health", "get")],
)
def test_what_is_sent_is_answered_as_described_and_never_breaks_the_server(
    api, path, method, request
):
    # Most of the two applications is the same.
    examples = 20 if "usual" in request.node.name else 8

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def run(case):
        case.call_and_validate(checks=CHECKS)

    run()


def test_every_route_is_described_and_nothing_else(app):
    described = {
        (re.sub(r"\{models\}", "<models>", path), method.upper())
        for path, methods in app.test_client().get("/openapi.json").json["paths"].items()
        for method in methods
        if method != "parameters"
    }
    routes = {
        (rule.rule, method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method in ("GET", "POST") and not rule.rule.startswith("/static")
    }
    # Under a choice of models lies the same; what does not depend on them is described once.
    routes -= {("/", "GET"), ("/m/<models>/", "GET")}
    once = {r for r in routes if r[0].startswith("/m/")} - described
    assert {(path.removeprefix("/m/<models>"), method) for path, method in once} <= described
    assert described == routes - once
