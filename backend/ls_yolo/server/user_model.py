"""A user's own class, as the routes ask for it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.arbiter import Arbiter
from werkzeug.exceptions import BadRequest

from ls_yolo.images.web import Web
from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.connections import ConnectionCache
from ls_yolo.models import weights
from ls_yolo.server import base, diagnosis, routes
from ls_yolo.server.routes import Call
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
        sys.exit(Arbiter.WORKER_BOOT_ERROR)
    if not values["BASIC_AUTH_PASS"]:
        log.warning("BASIC_AUTH_PASS is empty: whoever reaches the port may use the model")
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    said = ConnectionCache(studio, parameters)
    app = build(own, said, user, password, base.RequestLimiter(values["THREADS"]))
    diagnosis.install(app, values, studio)
    return app


class UserModelService:
    """See `ls_yolo.server.routes.Service`. ``said``: what connections of projects say.

    Names in the URL, ``/m/a+b``, count as ``extra_params`` ``{"0": "a", "1": "b"}``.
    """

    def __init__(self, own: ModelRunner, said: ConnectionCache[dict[str, Any]]) -> None:
        self.name = own.name
        self._own = own
        self._said = said

    def check(self, models: Sequence[str]) -> None:
        """Whatever names there are, the class is told."""

    def status(self, models: Sequence[str] = ()) -> dict[str, Any]:
        row = {"name": self.name, "state": "ready", "version": self._own.initial, "error": ""}
        return {"config": "", "error": "", "models": [row]}

    def reload(self) -> dict[str, Any]:
        # A changed class is taken by a new start, which `make up` makes.
        return self.status()

    def versions(self, models: Sequence[str]) -> list[str]:
        return self._own.versions()

    def setup(self, call: Call) -> dict[str, Any]:
        asked = self._context(replace(call, body={"extra_params": None, **call.body}))
        return {"model_version": self._own.version(asked)}

    def predict(
        self, call: Call, tasks: Sequence[dict[str, Any]], gone: Callable[[], bool]
    ) -> list[Any]:
        params = call.body.get("params") or {}
        if not isinstance(params, dict):
            raise BadRequest("params: expected a JSON object")
        return self._own.predict(tasks, self._context(call), params, gone)

    def webhook(self, call: Call) -> tuple[dict[str, Any], int]:
        event, project = str(call.body.get("action", "")), call.body.get("project")
        if event not in self._own.events:
            return {"status": "ignored"}, 200
        if not self._own.trains:
            return {"error": f"training is not offered: {self.name} has no fit()"}, 501
        if not isinstance(project, dict):
            raise BadRequest("project: expected a JSON object with id and label_config")
        data = {key: value for key, value in call.body.items() if key != "action"}
        of = {"project": project.get("id")}
        asked = self._context(
            replace(call, body=of, config=base.text_field(project, "label_config"))
        )
        self._own.train(event, data, asked)
        return {"status": "ok", "result": "fit() runs in the background"}, 201

    def _context(self, call: Call) -> RequestContext:
        project = call.project
        if call.models:
            extra = parameters(list(call.models))
        elif "extra_params" in call.body:
            extra = self._said.remember(project, call.body["extra_params"])
        else:
            extra = self._said.recall(project, call.host)
        return RequestContext("" if project is None else str(project), call.config or None, extra)


def build(
    own: ModelRunner,
    said: ConnectionCache[dict[str, Any]],
    user: str,
    password: str,
    places: base.RequestLimiter,
) -> Flask:
    """The application around its parts; see `ls_yolo.server.routes.build`."""
    return routes.build(UserModelService(own, said), user, password, places)
