"""``/openapi.json``: the HTTP interface as OpenAPI 3.1, made from the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Flask

from ls_yolo.labelstudio.selection import PREFIX

INTERFACE = "1.0.0"
"""The version of the interface, not of what serves it."""
TEXT = {"type": "string"}
CHOSEN = f"{PREFIX}<models>"
"""Under what a request names the models that shall answer it, joined by ``+``."""

View = TypeVar("View", bound=Callable[..., Any])


def object_of(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def json_answer(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def error_answer(description: str) -> dict[str, Any]:
    return json_answer({"$ref": "#/components/schemas/Error"}, description)


_ERRORS = {
    400: error_answer("The request is malformed, or its labeling config cannot be answered."),
    401: error_answer("User and password are needed."),
    403: error_answer("A page of another site sent it."),
    404: error_answer("A model that was asked for is not there."),
    408: error_answer("The body did not arrive in time."),
    413: error_answer("The body is too large."),
    429: error_answer("Too much waits already.")
    | {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "In seconds."}}},
    503: error_answer("A model is not loaded, or Label Studio cannot be asked."),
}


@dataclass(frozen=True)
class Operation:
    """What a route does, beside it: for the description, and for what stands before all routes.

    answers: by status, what the route itself answers with. What all routes have in common (401,
        404 of a model's name, 408, ...) is added.
    errors: more statuses of errors that a request can meet.
    body: the schema of what it takes; None: it takes nothing.
    media: what that is sent as.
    open: it is answered without user and password.
    slow: it may take long, so it takes a place of `RequestLimiter`.
    spare: it may also take the place that is kept from predictions.
    of_models: models that the URL names matter to it.
    """

    summary: str
    answers: Mapping[int, dict[str, Any]]
    errors: tuple[int, ...] = ()
    body: dict[str, Any] | None = None
    media: str = "application/json"
    open: bool = False
    slow: bool = False
    spare: bool = False
    of_models: bool = True

    def __call__(self, view: View) -> View:
        """Marks ``view`` as what does it."""
        view.operation = self  # type: ignore[attr-defined]
        return view

    def describe(self, name: str, method: str, chosen: bool) -> dict[str, Any]:
        """It as OpenAPI has it; ``method`` in small letters; ``chosen``: under `CHOSEN`."""
        codes = {
            *self.errors,
            *(() if self.open else (401,)),
            *((400, 408, 413, 429) if self.body else ()),
            *((403,) if method != "get" else ()),
            *((429,) if self.slow else ()),
            *((400, 404) if chosen else ()),
        }
        found = {code: _ERRORS[code] for code in codes} | dict(self.answers)
        return {
            "operationId": f"{name}_of" if chosen else name,
            "summary": self.summary,
            "responses": {str(code): found[code] for code in sorted(found)},
            **({"security": []} if self.open else {}),
            **({"requestBody": _required(self.body, self.media)} if self.body else {}),
            **({"parameters": [_MODELS]} if chosen else {}),
        }


def operation(app: Flask, endpoint: str | None) -> Operation | None:
    """What ``endpoint`` of ``app`` does; None where there is no such address."""
    return getattr(app.view_functions.get(endpoint or ""), "operation", None)


def register(app: Flask, routes: Blueprint) -> None:
    """Adds ``routes`` to ``app``, and the same under `CHOSEN`."""
    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix=CHOSEN, name="chosen")


def describe(app: Flask) -> dict[str, Any]:
    """The description of all routes of ``app`` that have an `Operation`.

    Under `CHOSEN` lies everything; what does not depend on models is described once.
    """
    paths: dict[str, Any] = {}
    for rule in app.url_map.iter_rules():
        found, chosen = operation(app, rule.endpoint), "models" in rule.arguments
        alias = chosen and rule.rule.endswith("/")  # of /health
        if found is None or alias or (chosen and not found.of_models):
            continue
        name = rule.endpoint.rpartition(".")[2]
        (method,) = (rule.methods or set()) - {"HEAD", "OPTIONS"}
        path = paths.setdefault(rule.rule.replace("<models>", "{models}"), {})
        path[method.lower()] = found.describe(name, method.lower(), chosen)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ls-yolo backend",
            "version": INTERFACE,
            "description": "YOLO models as a Label Studio ML backend.",
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": object_of({"error": TEXT})},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
        },
        "security": [{"basic": []}],
    }


def _required(schema: dict[str, Any], media: str) -> dict[str, Any]:
    return {"required": True, "content": {media: {"schema": schema}}}


_MODELS = {
    "name": "models",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "Names of models, joined by +",
}
