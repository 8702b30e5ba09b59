"""The routes, once for the kit's models and for a user's own class. No logic of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flask import Blueprint, Flask, g, jsonify, request
from werkzeug.exceptions import BadRequest

from ls_yolo import logs
from ls_yolo.labelstudio import selection
from ls_yolo.server.base import (
    RequestLimiter,
    client_gone,
    json_body,
    object_body,
    shell,
    text_field,
    unauthorized,
)
from ls_yolo.server.openapi import (
    TEXT,
    Operation,
    error_answer,
    json_answer,
    list_of,
    object_of,
    register,
)
from ls_yolo.server.status.board import Board
from ls_yolo.server.status.page import StatusPage, wants_page


@dataclass(frozen=True)
class Call:
    """What a request says, besides its tasks.

    body: the JSON object that came.
    models: the names in the URL.
    host: the name and port that we were called by.
    config: the labeling config, or empty.
    """

    body: Mapping[str, Any]
    models: tuple[str, ...]
    host: str
    config: str = ""

    @property
    def project(self) -> int | None:
        """The project's id: Label Studio writes ``<id>.<time of creation>``."""
        number = re.match(r"([0-9]{1,18})(\.|$)", str(self.body.get("project") or ""))
        return int(number[1]) if number else None


class Service(Protocol):
    """What the routes ask: the models of models.yaml, or a user's own class."""

    @property
    def name(self) -> str:
        """What ``/health`` says that answers."""

    def check(self, models: Sequence[str]) -> None:
        """Returns if models of these names may be asked for.

        Raises:
            UnknownModel: there is none of a name.
        """

    def status(self, models: Sequence[str] = ()) -> dict[str, Any]:
        """``{"config", "error", "models"}``, of those called ``models`` or of all; see
        `ls_yolo.serving.registry.Registry.status`. It waits for nothing."""

    def reload(self) -> dict[str, Any]:
        """Takes what changed, as far as it can; returns `status`."""

    def versions(self, models: Sequence[str]) -> list[str]:
        """The version of ``models`` together, or all that answer. It waits for nothing."""

    def setup(self, call: Call) -> dict[str, Any]:
        """What ``/setup`` answers: ``model_version``, and more."""

    def predict(
        self, call: Call, tasks: Sequence[dict[str, Any]], gone: Callable[[], bool]
    ) -> list[Any]:
        """An entry a task, in order. ``gone``: whether nobody waits any longer."""

    def webhook(self, call: Call) -> tuple[dict[str, Any], int]:
        """The answer to an event of Label Studio, and its status. It waits for nothing."""


UP = json_answer(object_of({"status": {"const": "UP"}, "model_class": TEXT}), "It is.")
VERSION = TEXT | {"description": "<name>@<hash>; several are joined by +"}
CONFIG = "A labeling config of Label Studio, in XML"
PROJECT = {"type": ["string", "integer", "null"], "description": "<id>.<time of creation>"}
PREDICTION = object_of(
    {
        "result": list_of({"type": "object", "description": "A region, as Label Studio has it"}),
        "score": {
            "type": ["number", "null"],
            "description": "How sure, as PRELABEL_SCORE says; 1: nothing found; null: failed",
        },
        "model_version": VERSION,
    },
    error={"type": "string", "description": "Why the task failed"},
    likeness={
        "type": "string",
        "description": "Hash of the task's first image, where params.likeness is true",
    },
)
STATUS = object_of(
    {"status": {"enum": ["ready", "failed"]}},
    loaded={"type": "integer"},
    failed={"type": "integer"},
    models=list_of({"type": "object"}),
    error=TEXT,
)


def build(
    service: Service,
    user: str,
    password: str,
    places: RequestLimiter,
    board: Board | None = None,
) -> Flask:
    """The application around ``service``, with a status page that shows ``board``. An empty
    ``password``: no authentication."""
    app = shell(user, password, places)
    routes = Blueprint("backend", __name__)
    page = StatusPage(service, board or Board())

    def names(models: str | None) -> tuple[str, ...]:
        found = selection.from_url(models) if models else ()
        service.check(found)
        return found

    @routes.get("/health")
    @Operation(
        "Whether it is up, for Label Studio",
        {200: UP},
        open=True,
    )
    def health(models: str | None = None) -> Any:
        names(models)
        return jsonify(status="UP", model_class=service.name)

    @routes.get("/")
    @Operation(
        "The status page; to all but browsers what /health says",
        {
            200: {
                "description": "It is up.",
                "content": {**UP["content"], "text/html": {"schema": TEXT}},
            },
            401: error_answer("The page needs user and password."),
        },
        open=True,
        of_models=False,
    )
    def root(models: str | None = None) -> Any:
        if models is None and wants_page():
            return page.show() if g.trusted else unauthorized()
        return health(models)

    @routes.get("/livez")
    @Operation(
        "Whether the process is alive",
        {200: json_answer(object_of({"status": {"const": "alive"}}), "It is.")},
        open=True,
        of_models=False,
    )
    def livez(models: str | None = None) -> Any:
        return jsonify(status="alive")

    @routes.get("/readyz")
    @Operation(
        "Whether models can answer, and which",
        {200: json_answer(STATUS, "At least one can."), 503: json_answer(STATUS, "None can.")},
        open=True,
    )
    def readyz(models: str | None = None) -> Any:
        found = service.status(names(models))
        rows = found["models"]
        able = [row for row in rows if row["state"] != "failed"]
        status = "ready" if able else "failed"
        answer = {"status": status, "loaded": len(able), "failed": len(rows) - len(able)}
        if g.trusted:  # errors name files, so they are not for everyone
            answer |= {"models": rows, "error": found["error"]}
        return jsonify(answer), 200 if able else 503

    @routes.post("/reload")
    @Operation(
        "Takes changed models now",
        {
            200: json_answer(
                object_of({"config": TEXT, "error": TEXT, "models": list_of({"type": "object"})}),
                "What was found, and the SHA-256 of models.yaml; with MODEL_CLASS, which takes "
                "changes at a start, what is there.",
            )
        },
        slow=True,
        of_models=False,
    )
    def reload(models: str | None = None) -> Any:
        # What changed is taken before the answer, so that who has put new weights there may go on.
        return jsonify(service.reload())

    @routes.post("/setup")
    @Operation(
        "What Label Studio says of a project, before predictions",
        {
            200: json_answer(
                object_of(
                    {"model_version": VERSION},
                    unmapped={
                        "type": "object",
                        "description": "Control, then label, to why no class stands for it",
                    },
                    warnings=list_of(
                        TEXT | {"description": "What else is not drawn, or may not be taken"}
                    ),
                    waiting={
                        "type": "string",
                        "description": "Why there is nothing to draw yet; empty where there is",
                    },
                ),
                "The version that will answer.",
            )
        },
        errors=(404, 503),
        body=object_of(
            {},
            project=PROJECT,
            schema={"type": ["string", "null"], "description": CONFIG},
            extra_params={"description": "Names of models"},
        ),
        # It loads a model that is not loaded; while predictions run, Label Studio asks it still.
        slow=True,
        spare=True,
    )
    def setup(models: str | None = None) -> Any:
        body = object_body()
        config = text_field(body, "schema")
        return jsonify(service.setup(Call(body, names(models), request.host, config)))

    @routes.post("/predict")
    @Operation(
        "Predictions for tasks",
        {
            200: json_answer(
                object_of(
                    {
                        "results": list_of(
                            {
                                "anyOf": [PREDICTION, list_of(PREDICTION)],
                                "description": "A list only with MODEL_CLASS",
                            }
                        )
                    }
                ),
                "One a task, in order.",
            ),
            500: error_answer("No task could be predicted, and not for the tasks' own fault."),
        },
        errors=(404, 503),
        body=object_of(
            {
                "tasks": list_of(object_of({}, id={"type": "integer"}, data={"type": "object"})),
                "label_config": TEXT | {"description": CONFIG},
            },
            project=PROJECT,
            params={"type": ["object", "null"]},
        ),
        slow=True,
    )
    def predict(models: str | None = None) -> Any:
        body = object_body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise BadRequest("tasks: expected a list of tasks, each a JSON object")
        logs.note(tasks=len(tasks))
        config = text_field(body, "label_config")
        gone = client_gone(request.environ.get("gunicorn.socket"))
        call = Call(body, names(models), request.host, config)
        return jsonify(results=service.predict(call, tasks, gone))

    @routes.get("/versions")
    @Operation(
        "The versions that answer",
        {200: json_answer(object_of({"versions": list_of(VERSION)}), "All versions.")},
    )
    def versions(models: str | None = None) -> Any:
        return jsonify(versions=service.versions(names(models)))

    @routes.post("/webhook")
    @Operation(
        "What happens in Label Studio",
        {
            200: json_answer(
                object_of({"status": {"const": "ignored"}}), "Nothing was to be done."
            ),
            201: json_answer(
                object_of({"status": {"const": "ok"}, "result": TEXT}),
                "With MODEL_CLASS: fit() runs.",
            ),
            501: error_answer("Training is not offered."),
        },
        body=object_of({}, action=TEXT),
        of_models=False,
    )
    def webhook(models: str | None = None) -> Any:
        # Who has not said the password, where there is one, does not come to here with a training.
        body = json_body()
        chosen = selection.from_url(models) if models else ()
        call = Call(body if isinstance(body, dict) else {}, chosen, request.host)
        answer, status = service.webhook(call)
        return jsonify(answer), status

    register(app, routes)
    app.register_blueprint(page.routes())
    return app
