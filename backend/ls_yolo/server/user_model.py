"""The routes of a user's own class."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, jsonify, request
from werkzeug.exceptions import BadRequest

from ls_yolo import logs
from ls_yolo.images.web import Web
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.connections import ConnectionCache
from ls_yolo.models import weights
from ls_yolo.server import base
from ls_yolo.user_model.loader import ModelClassError
from ls_yolo.user_model.request import RequestContext
from ls_yolo.user_model.runner import ModelRunner

log = logging.getLogger(__name__)


def parameters(value: Any) -> dict[str, Any]:
    """``extra_params`` as a class reads them: an object; JSON text too.

    A list or a name alone becomes ``{"0": ..., "1": ...}``, so that ``.values()`` has them.
    """
    if isinstance(value, str):
        text = value
        try:
            value = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError):
            value = text
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if value is None or value == "":
        return {}
    items = value if isinstance(value, list) else [value]
    return {str(number): item for number, item in enumerate(items)}


def create(values: Mapping[str, Any]) -> Flask:
    """The application that serves the class of the settings ``values``.

    Where it cannot serve, it says why and exits.
    """
    studio = Studio.read(values)
    weights.safe()  # the class is trusted, what it loads is not
    try:
        own = ModelRunner(
            values["MODEL_CLASS"],
            Path(values["MODEL_ROOT"]),
            Path(values["LOCAL_FILES_DOCUMENT_ROOT"]),
            studio,
            Web.read(values),
            kept=Path(values["MODEL_DIR"]),
        )
    except ModelClassError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(base.WORKER_BOOT_ERROR)
    if not values["BASIC_AUTH_PASS"]:
        log.warning("BASIC_AUTH_PASS is empty: whoever reaches the port may use the model")
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    said = ConnectionCache(studio, parameters)
    return build(own, said, user, password, base.RequestLimiter(values["THREADS"]))


def build(
    own: ModelRunner,
    said: ConnectionCache[dict[str, Any]],
    user: str,
    password: str,
    places: base.RequestLimiter,
) -> Flask:
    """The application around its parts; see `ls_yolo.server.models.build`.

    Names in the URL, ``/m/a+b``, count as ``extra_params`` ``{"0": "a", "1": "b"}``.
    """
    app = base.shell(user, password, places)
    routes = Blueprint("backend", __name__)

    def call(body: Mapping[str, Any], config: Any, models: str | None) -> RequestContext:
        number = base.project_id(dict(body))
        project = "" if number is None else str(number)
        if models:
            extra = parameters(list(selection.from_url(models)))
        elif "extra_params" in body:
            extra = said.remember(number, body["extra_params"])
        else:
            extra = said.recall(number, request.host)
        return RequestContext(project, config or None, extra)

    @routes.get("/health")
    @routes.get("/")
    def health(models: str | None = None) -> Any:
        return jsonify(status="UP", model_class=own.name)

    @routes.get("/livez")
    def livez(models: str | None = None) -> Any:
        return jsonify(status="alive")

    def status() -> dict[str, Any]:
        row = {"name": own.name, "state": "ready", "version": own.initial, "error": ""}
        return {"models": [row], "error": ""}

    @routes.get("/readyz")
    def readyz(models: str | None = None) -> Any:
        answer: dict[str, Any] = {"status": "ready", "loaded": 1, "failed": 0}
        if not password or base.authorized(user, password):
            answer |= status()
        return jsonify(answer)

    @routes.post("/reload")
    def reload(models: str | None = None) -> Any:
        # A changed class is taken by a new start, which `make up` makes.
        return jsonify(status() | {"config": ""})

    @routes.post("/setup")
    def setup(models: str | None = None) -> Any:
        body = {"extra_params": None, **base.object_body()}
        return jsonify(
            model_version=own.version(call(body, base.text_field(body, "schema"), models))
        )

    @routes.post("/predict")
    def predict(models: str | None = None) -> Any:
        body = base.object_body()
        tasks, params = body.get("tasks"), body.get("params") or {}
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise BadRequest("tasks: expected a list of tasks, each a JSON object")
        if not isinstance(params, dict):
            raise BadRequest("params: expected a JSON object")
        logs.note(tasks=len(tasks))
        gone = base.client_gone(request.environ.get("gunicorn.socket"))
        asked = call(body, base.text_field(body, "label_config"), models)
        return jsonify(results=own.predict(tasks, asked, params, gone))

    @routes.get("/versions")
    def versions(models: str | None = None) -> Any:
        return jsonify(versions=own.versions())

    @routes.post("/webhook")
    def webhook(models: str | None = None) -> Any:
        # Who has not said the password, where there is one, does not come to here.
        body = base.object_body()
        event, project = str(body.get("action", "")), body.get("project")
        if event not in own.events:
            return jsonify(status="ignored")
        if not own.trains:
            return jsonify(error=f"training is not offered: {own.name} has no fit()"), 501
        if not isinstance(project, dict):
            raise BadRequest("project: expected a JSON object with id and label_config")
        data = {key: value for key, value in body.items() if key != "action"}
        asked = call({"project": project.get("id")}, project.get("label_config"), models)
        own.train(event, data, asked)
        return jsonify(status="ok", result="fit() runs in the background"), 201

    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix="/m/<models>", name="chosen")
    return app
