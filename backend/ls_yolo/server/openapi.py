"""The backend's HTTP interface, described as OpenAPI 3.1: what ``/openapi.json`` answers."""

from __future__ import annotations

from typing import Any

INTERFACE = "1.0.0"
"""The version of the interface, not of what serves it."""
TEXT = {"type": "string"}
NUMBER = {"type": "number"}
VERSION = {"type": "string", "description": "<name>@<hash>; several are joined by +"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": list(required),
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _error(description: str) -> dict[str, Any]:
    return _json({"$ref": "#/components/schemas/Error"}, description)


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


ERRORS = {
    "400": _error("The request is malformed, or its labeling config cannot be answered."),
    "401": _error("User and password are needed."),
    "404": _error("A model that was asked for is not there."),
    "408": _error("The body did not arrive in time."),
    "413": _error("The body is too large."),
    "415": _error("The body is not JSON."),
    "429": _error("Too much waits already.")
    | {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "In seconds."}}},
    "503": _error("A model is not loaded, or Label Studio cannot be asked."),
}


def _operation(
    name: str, summary: str, answer: dict[str, Any], codes: str = "", **more: Any
) -> dict[str, Any]:
    responses = {"200": answer} | {code: ERRORS[code] for code in codes.split()}
    return {"operationId": name, "summary": summary, "responses": responses, **more}


OPEN: dict[str, Any] = {"security": []}
CONFIG = {"type": "string", "description": "A labeling config of Label Studio, in XML"}
PROJECT = {"type": ["string", "integer", "null"], "description": "<id>.<time of creation>"}
PREDICTION = _object(
    {
        "result": _list({"type": "object", "description": "A region, as Label Studio has it"}),
        "score": {
            "type": ["number", "null"],
            "description": "Mean score of the regions; 0: nothing found; null: the task failed",
        },
        "model_version": VERSION,
    },
    error={"type": "string", "description": "Why the task failed"},
)
STATUS = _object(
    {"status": {"enum": ["ready", "failed"]}},
    loaded={"type": "integer"},
    failed={"type": "integer"},
    models=_list({"type": "object"}),
    error=TEXT,
)

PATHS: dict[str, Any] = {
    "/health": {
        "get": _operation(
            "health",
            "Whether it is up, for Label Studio",
            _json(_object({"status": {"const": "UP"}, "model_class": TEXT}), "It is up."),
            "404",
            **OPEN,
        )
    },
    "/livez": {
        "get": _operation(
            "livez",
            "Whether the process is alive",
            _json(_object({"status": {"const": "alive"}}), "It is alive."),
            **OPEN,
        )
    },
    "/readyz": {
        "get": _operation(
            "readyz",
            "Whether models can answer, and which",
            _json(STATUS, "At least one can."),
            "404",
            **OPEN,
        )
    },
    "/setup": {
        "post": _operation(
            "setup",
            "What Label Studio says of a project, before predictions",
            _json(
                _object(
                    {"model_version": VERSION},
                    unmapped={
                        "type": "object",
                        "description": "Control, then label, to why no class stands for it",
                    },
                    waiting={
                        "type": "string",
                        "description": "Why there is nothing to draw yet; empty where there is",
                    },
                ),
                "The version that will answer.",
            ),
            "400 401 404 408 413 503",
            requestBody=_body(
                _object(
                    {},
                    project=PROJECT,
                    schema={"type": ["string", "null"], "description": CONFIG["description"]},
                    extra_params={"description": "Names of models"},
                )
            ),
        )
    },
    "/predict": {
        "post": _operation(
            "predict",
            "Predictions for tasks",
            _json(
                _object(
                    {
                        "results": _list(
                            {
                                "anyOf": [PREDICTION, _list(PREDICTION)],
                                "description": "A list only with MODEL_CLASS",
                            }
                        )
                    }
                ),
                "One a task, in order.",
            ),
            "400 401 404 408 413 429 503",
            requestBody=_body(
                _object(
                    {
                        "tasks": _list(
                            _object({}, id={"type": "integer"}, data={"type": "object"})
                        ),
                        "label_config": CONFIG,
                    },
                    project=PROJECT,
                    params={"type": ["object", "null"]},
                )
            ),
        )
    },
    "/versions": {
        "get": _operation(
            "versions",
            "The versions that answer",
            _json(_object({"versions": _list(VERSION)}), "All versions."),
            "401 404",
        )
    },
    "/webhook": {
        "post": _operation(
            "webhook",
            "What happens in Label Studio",
            _json(_object({"status": {"const": "ignored"}}), "Nothing was to be done."),
            "400 401 408 413 429",
            requestBody=_body(_object({}, action=TEXT)),
        )
    },
    "/openapi.json": {
        "get": _operation(
            "openapi", "This description", _json({"type": "object"}, "OpenAPI."), "401"
        )
    },
    "/reload": {
        "post": _operation(
            "reload",
            "Takes changed models now",
            _json(
                _object({"config": TEXT, "error": TEXT, "models": _list({"type": "object"})}),
                "What was found, and the SHA-256 of models.yaml; with MODEL_CLASS, which takes "
                "changes at a start, what is there.",
            ),
            "401",
        )
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "Metrics for Prometheus",
            {"description": "All metrics.", "content": {"text/plain": {"schema": TEXT}}},
            "401",
        )
    },
}
PATHS["/readyz"]["get"]["responses"]["503"] = _json(STATUS, "None can.")
PATHS["/webhook"]["post"]["responses"] |= {
    "201": _json(
        _object({"status": {"const": "ok"}, "result": TEXT}), "With MODEL_CLASS: fit() runs."
    ),
    "501": _error("Training is not offered."),
}
_predict = PATHS["/predict"]["post"]["responses"]
_predict["500"] = _error("No task could be predicted, and not for the tasks' own fault.")
_MODELS = {
    "name": "models",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "Names of models, joined by +",
}
_CHOSEN = ("/health", "/readyz", "/setup", "/predict", "/versions")

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {
        "title": "ls-yolo backend",
        "version": INTERFACE,
        "description": "YOLO models as a Label Studio ML backend.",
        "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
    },
    "paths": PATHS
    | {
        f"/m/{{models}}{path}": {
            method: operation
            | {
                "operationId": f"{operation['operationId']}_of",
                # An empty name among those of the path is malformed.
                "responses": operation["responses"] | {"400": ERRORS["400"]},
            }
            for method, operation in PATHS[path].items()
        }
        | {"parameters": [_MODELS]}
        for path in _CHOSEN
    },
    "components": {
        "schemas": {"Error": _object({"error": TEXT})},
        "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
    },
    "security": [{"basic": []}],
}
