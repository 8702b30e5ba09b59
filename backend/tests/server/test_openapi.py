"""The service against its own description: whatever is sent, no fault of the server's."""

from __future__ import annotations

import sys

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ls_yolo.errors import RequestError
from ls_yolo.images.web import Web
from ls_yolo.labelstudio.connections import ConnectionCache, ModelChoices
from ls_yolo.server import base, models, user_model
from ls_yolo.server.status.board import Board
from ls_yolo.server.status.trying import Trier
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.user_model import runner


def no_fault_of_the_server(_context, response, _case):
    """501 is an answer: who asks for training is told that there is none."""
    assert response.status_code < 500 or response.status_code == 501, response.text


CHECKS = [
    no_fault_of_the_server,
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
    reader = ImageReader(datasets, None, "http://ls")
    predictor = Predictor(make_registry("person: {weights: p.pt}"), reader)
    board = Board(trier=Trier(predictor))
    return models.build(predictor, ModelChoices(None), "", "", base.RequestLimiter(16), board)


@pytest.fixture(params=["usual", "own"])
def app(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def api(app):
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


ROUTES = {
    ("/", "get"),
    ("/jobs", "get"),
    ("/jobs", "post"),
    ("/try", "post"),
    ("/health", "get"),
    ("/livez", "get"),
    ("/readyz", "get"),
    ("/versions", "get"),
    ("/metrics", "get"),
    ("/openapi.json", "get"),
    ("/setup", "post"),
    ("/predict", "post"),
    ("/reload", "post"),
    ("/webhook", "post"),
    ("/m/{models}/health", "get"),
    ("/m/{models}/readyz", "get"),
    ("/m/{models}/versions", "get"),
    ("/m/{models}/setup", "post"),
    ("/m/{models}/predict", "post"),
}


@pytest.mark.parametrize(("path", "method"), sorted(ROUTES))
def test_what_is_sent_is_answered_as_described_and_never_breaks_the_server(
    api, path, method, request
):
    # Most of the two applications is the same, and so is what lies under a choice of models.
    examples = 20 if "usual" in request.node.name and "/m/" not in path else 8

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def run(case):
        case.call_and_validate(checks=CHECKS)

    run()


def described(app):
    return app.test_client().get("/openapi.json").json["paths"]


def test_every_route_is_described_and_nothing_else(app):
    found = described(app)
    assert {(path, method) for path, methods in found.items() for method in methods} == ROUTES
    served = {
        (rule.rule.replace("<models>", "{models}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    # Under a choice of models lies the same; what does not depend on them is described once.
    once = {(f"/m/{{models}}{end}", "get") for end in ("/", "/livez")}
    once |= {("/static/<path:filename>", "get")}  # the page's own script and style
    once |= {(f"/m/{{models}}{end}", "post") for end in ("/reload", "/webhook")}
    assert served == ROUTES | once


def test_every_error_that_a_request_can_meet_is_described(app):
    """Whoever adds one says so in the description."""
    predict = described(app)["/predict"]["post"]["responses"]
    statuses = {str(error.status) for error in kinds_of(RequestError)} - {"499"}  # nobody reads it
    assert statuses >= {"400", "404", "429", "500", "503"}
    assert statuses <= set(predict)


def kinds_of(error):
    return {error}.union(*map(kinds_of, error.__subclasses__()))


def test_what_needs_no_password_is_described_so(app):
    for path, methods in described(app).items():
        for method, operation in methods.items():
            free = path.rpartition("/")[2] in ("", "health", "livez", "readyz")
            assert (operation.get("security") == []) == free, path
            # To a browser / is a page, which needs one.
            assert ("401" in operation["responses"]) != free or path == "/", (path, method)
