"""The routes of the models of models.yaml. No logic of their own."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Flask, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
)

from ls_yolo import logs
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server.base import (
    RequestLimiter,
    action,
    authorized,
    client_gone,
    object_body,
    project_id,
    shell,
    text_field,
)
from ls_yolo.serving.batcher import Released
from ls_yolo.serving.predictor import Plan, Predictor
from ls_yolo.serving.registry import (
    join_versions,
)

log = logging.getLogger(__name__)
RELOAD_WITHIN = 60.0
"""Seconds that a request to reload waits for files that are still being written."""
PROJECTS_TOLD = 1000
"""Of how many projects it is kept what was said of their labels."""


def build(
    predictor: Predictor, choices: ModelChoices, user: str, password: str, places: RequestLimiter
) -> Flask:
    """The application around its parts. An empty ``password``: no authentication."""
    told = _Told()
    app = shell(user, password, places)
    routes = Blueprint("backend", __name__)

    def url_names(models: str | None) -> tuple[str, ...]:
        names = selection.from_url(models) if models else ()
        for name in names:
            predictor.registry.check(name)
        return names

    def plan(config: str, models: str | None, extra: tuple[str, ...]) -> Plan:
        return predictor.plan(config, url_names(models), extra)

    @routes.get("/health")
    @routes.get("/")
    def health(models: str | None = None) -> Any:
        url_names(models)
        return jsonify(status="UP", model_class="ls-yolo")

    @routes.get("/livez")
    def livez(models: str | None = None) -> Any:
        return jsonify(status="alive")

    @routes.get("/readyz")
    def readyz(models: str | None = None) -> Any:
        found = predictor.registry.status()
        rows = found["models"]
        if wanted := url_names(models):
            rows = [row for row in rows if row["name"] in wanted]
        able = [row for row in rows if row["state"] != "failed"]
        status = "ready" if able else "failed"
        answer = {"status": status, "loaded": len(able), "failed": len(rows) - len(able)}
        if not password or authorized(user, password):
            # Errors name files, so they are not for everyone.
            answer |= {"models": rows, "error": found["error"]}
        return jsonify(answer), 200 if able else 503

    @routes.post("/reload")
    def reload(models: str | None = None) -> Any:
        # What changed is taken before the answer, so that who has put new weights there may go on.
        return jsonify(predictor.registry.refresh(RELOAD_WITHIN))

    @routes.post("/setup")
    def setup(models: str | None = None) -> Any:
        body = object_body()
        # With models in the URL, extra_params may be anything: they do not choose.
        extra = () if models else choices.remember(project_id(body), body.get("extra_params"))
        config = text_field(body, "schema")
        if not config:
            # Label Studio's own test of a connection has no project and so no configuration.
            names = url_names(models) or extra or (predictor.registry.default,)
            version = join_versions(predictor.registry.version(name) for name in names)
            return jsonify(model_version=version)
        found = plan(config, models, extra)
        told.tell(project_id(body), found)
        return jsonify(model_version=found.version, unmapped=found.unmapped, waiting=found.waiting)

    @routes.post("/predict")
    def predict(models: str | None = None) -> Any:
        body = object_body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise BadRequest("tasks: expected a list of tasks, each a JSON object")
        logs.note(tasks=len(tasks))
        config = text_field(body, "label_config")
        extra = () if models else choices.recall(project_id(body), request.host)
        gone = client_gone(request.environ.get("gunicorn.socket"))
        for _ in range(3):  # a model may be replaced between plan and prediction
            with contextlib.suppress(Released):
                found = plan(config, models, extra)
                return jsonify(results=predictor.predict(tasks, found, gone))
        raise Released("the models change faster than they can answer; try again shortly")

    @routes.get("/versions")
    def versions(models: str | None = None) -> Any:
        names = url_names(models)
        found = [predictor.registry.version(name) for name in names] or [
            row["version"] for row in predictor.registry.status()["models"] if row["version"]
        ]
        return jsonify(versions=[join_versions(found)] if names else found)

    @routes.post("/webhook")
    def webhook(models: str | None = None) -> Any:
        if action() == "START_TRAINING":
            return jsonify(error="training is not offered by this backend"), 501
        return jsonify(status="ignored")

    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix="/m/<models>", name="chosen")
    return app


class _Told:
    """What the log has of each project's labels: Label Studio asks again and again."""

    def __init__(self) -> None:
        self._last: dict[int | None, Sequence[str]] = {}

    def tell(self, project: int | None, plan: Plan) -> None:
        """Logs what is not drawn and why, unless that was so the last time."""
        lines = [
            f"label {label!r} of {control!r}: {reason}"
            for control, reasons in plan.unmapped.items()
            for label, reason in reasons.items()
        ] + ([f"waiting for something to draw: {plan.waiting}"] if plan.waiting else [])
        if self._last.get(project, []) == lines:
            return
        if len(self._last) >= PROJECTS_TOLD:
            self._last.clear()
        self._last[project] = lines
        for line in lines:
            log.warning("project %s: %s", project, line)
