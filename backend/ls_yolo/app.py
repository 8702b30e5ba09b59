"""The ML backend protocol over HTTP. No logic of its own."""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import select
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, Response, g, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    HTTPException,
    RequestEntityTooLarge,
)

from ls_yolo import SMALL_BODY, engines, logs, metrics, openapi, selection, settings
from ls_yolo.batching import Owner, QueueFull, Released
from ls_yolo.choices import Choices
from ls_yolo.config import ConfigError
from ls_yolo.engines import EngineError
from ls_yolo.labels import LabelConfigError
from ls_yolo.plot import Plotter
from ls_yolo.predictor import ClientGone, Plan, PredictionError, Predictor
from ls_yolo.registry import (
    ModelUnavailable,
    Options,
    Registry,
    Source,
    UnknownModel,
    join_versions,
)
from ls_yolo.selection import SelectionError
from ls_yolo.studio import Studio, StudioError
from ls_yolo.web import Web

log = logging.getLogger(__name__)

WORKER_BOOT_ERROR = 3
"""What gunicorn takes a worker's exit with this code for: it cannot start at all."""
MAX_BODY = 64 * 1024 * 1024
"""The largest request body, in bytes: 250 tasks with their annotations are far below it."""
RELOAD_WITHIN = 60.0
"""Seconds that a request to reload waits for files that are still being written."""
RETRY_AFTER = "1"
"""Seconds after which a client that was turned away may try again."""
PROJECTS_TOLD = 1000
"""Of how many projects it is kept what was said of their labels."""
OPEN = frozenset({"health", "livez", "readyz"})
"""What is answered without authentication."""

STATUS: dict[type[Exception], int] = {
    LabelConfigError: 400,
    SelectionError: 400,
    UnknownModel: 404,
    PredictionError: 500,
    EngineError: 500,
    ModelUnavailable: 503,
    StudioError: 503,
    QueueFull: 429,
    Released: 503,
    ClientGone: 499,
}
"""The status code of each error that a request can meet."""


def create_app() -> Flask:
    """The application as the environment asks for it, every model loaded and warmed up.

    Where it cannot serve, it says why in a line and exits.
    """
    values = settings.read("backend")
    logs.configure(values)
    if values["MODEL_CLASS"]:
        from ls_yolo import custom  # here, because it builds on this module

        return custom.create(values)
    root, threshold = Path(values["MODEL_ROOT"]), values["MODEL_SCORE_THRESHOLD"]
    try:
        models = Registry(
            Source(Path(values["MODELS_CONFIG"]), root, threshold),
            lambda entry: engines.load(
                entry.weights,
                values["DEVICE"],
                entry.sha256,
                Path(values["MODEL_DIR"]),
                values["ENGINE"],
                entry.imgsz,
                values["PRECISION"],
                Path(values["LOCAL_FILES_DOCUMENT_ROOT"], values["CALIBRATION_IMAGES"]),
            ),
            values["DEFAULT_MODEL"],
            values["ALLOW_CUSTOM_MODEL_PATH"],
            Options.read(values),
            lambda engine, name: Owner(
                engine,
                values["BATCH_SIZE"],
                values["BATCH_WINDOW_MS"] / 1000,
                values["QUEUE_SIZE"],
                name,
            ),
        )
        models.watch()
    except (ConfigError, UnknownModel, EngineError) as error:
        print(error, file=sys.stderr, flush=True)
        # This code alone makes gunicorn stop, instead of starting the worker over and over.
        sys.exit(WORKER_BOOT_ERROR)
    if not values["BASIC_AUTH_PASS"]:
        log.warning("BASIC_AUTH_PASS is empty: whoever reaches the port may use the models")
    studio = Studio.read(values)
    predictor = Predictor(
        models,
        Path(values["LOCAL_FILES_DOCUMENT_ROOT"]),
        studio,
        values["LABEL_STUDIO_URL"],
        values["DECODE_THREADS"],
        Web.read(values),
        values["DECODE_REDUCED"],
        Plotter(Path(values["DEBUG_PLOT"])) if values["DEBUG_PLOT"] else None,
    )
    return build(
        predictor,
        Choices(studio),
        values["BASIC_AUTH_USER"],
        values["BASIC_AUTH_PASS"],
        Places(values["THREADS"]),
    )


class Places:
    """How many requests that may take long are worked for at a time, for predictions or with a
    large body: all but two of ``threads``, so that one is always free for what is answered at once,
    429 included."""

    def __init__(self, threads: int) -> None:
        self._most = max(1, threads - 2)
        self._free = threading.BoundedSemaphore(self._most)

    def take(self) -> None:
        """Takes a place, until it is given back.

        Raises:
            QueueFull: none is free.
        """
        if not self._free.acquire(blocking=False):
            raise QueueFull(f"{self._most} requests run already; try again shortly")

    def give_back(self) -> None:
        """Gives a place back."""
        self._free.release()


def shell(user: str, password: str, places: Places) -> Flask:
    """What all routes are behind: authentication, limits, errors as JSON.

    An empty ``password``: no authentication.
    """
    app = Flask("ls_yolo")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    logs.install(app)
    metrics.install(app)

    @app.before_request
    def authenticate() -> Response | None:
        name = (request.endpoint or "").rpartition(".")[2]
        if name in OPEN or not password or _authorized(user, password):
            return None
        # Label Studio sends no authentication with the webhooks of tasks and annotations, which ask
        # for nothing here; an error would only fill its log. With a button's it does, whose body is
        # small: from strangers no other is read, since it need not have arrived yet.
        if name == "webhook" and "Authorization" not in request.headers and not _trains():
            return jsonify(status="ignored")
        answer = jsonify(
            error="authentication is needed: BASIC_AUTH_USER and BASIC_AUTH_PASS of .env"
        )
        answer.status_code = 401
        answer.headers["WWW-Authenticate"] = 'Basic realm="ls-yolo"'
        return answer

    @app.before_request
    def admit() -> None:
        # Before the body is read: who sends it slowly takes a place, but never the last thread.
        if (request.endpoint or "").rpartition(".")[2] == "predict" or not _small():
            places.take()
            g.place = places

    @app.teardown_request
    def leave(error: BaseException | None) -> None:
        if "place" in g:
            g.pop("place").give_back()

    @app.get("/openapi.json")
    def description() -> Any:
        return jsonify(openapi.DOCUMENT)

    @app.errorhandler(Exception)
    def fail(error: Exception) -> tuple[Response, int]:
        if isinstance(error, ClientDisconnected):
            return jsonify(error="the request did not arrive in whole, or not in time"), 408
        if isinstance(error, HTTPException):
            answer = jsonify(error=error.description)
            # Such as Allow, without which 405 is no help.
            answer.headers.extend(h for h in error.get_headers() if h[0] != "Content-Type")
            return answer, error.code or 500
        metrics.count_error(error)
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        if type(error) in STATUS:
            log.warning("%s %r: %s", request.method, request.path, error)
            answer = jsonify(error=str(error))
            if status == 429:
                answer.headers["Retry-After"] = RETRY_AFTER
            return answer, status
        log.exception("%s %r failed", request.method, request.path)
        return jsonify(error="the backend failed; its log says why"), 500

    return app


def build(
    predictor: Predictor, choices: Choices, user: str, password: str, places: Places
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
        if not password or _authorized(user, password):
            # Errors name files, so they are not for everyone.
            answer |= {"models": rows, "error": found["error"]}
        return jsonify(answer), 200 if able else 503

    @routes.post("/reload")
    def reload(models: str | None = None) -> Any:
        # What changed is taken before the answer, so that who has put new weights there may go on.
        return jsonify(predictor.registry.refresh(RELOAD_WITHIN))

    @routes.post("/setup")
    def setup(models: str | None = None) -> Any:
        body = _body()
        # With models in the URL, extra_params may be anything: they do not choose.
        extra = () if models else choices.remember(_project(body), body.get("extra_params"))
        config = _text(body, "schema")
        if not config:
            # Label Studio's own test of a connection has no project and so no configuration.
            names = url_names(models) or extra or (predictor.registry.default,)
            version = join_versions(predictor.registry.version(name) for name in names)
            return jsonify(model_version=version)
        found = plan(config, models, extra)
        told.tell(_project(body), found.unmapped)
        return jsonify(model_version=found.version, unmapped=found.unmapped)

    @routes.post("/predict")
    def predict(models: str | None = None) -> Any:
        body = _body()
        tasks = body.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise BadRequest("tasks: expected a list of tasks, each a JSON object")
        logs.note(tasks=len(tasks))
        config = _text(body, "label_config")
        extra = () if models else choices.recall(_project(body), request.host)
        gone = _gone(request.environ.get("gunicorn.socket"))
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
        if _action() == "START_TRAINING":
            return jsonify(error="training is not offered by this backend"), 501
        return jsonify(status="ignored")

    app.register_blueprint(routes)
    app.register_blueprint(routes, url_prefix="/m/<models>", name="chosen")
    return app


class _Told:
    """What the log has of each project's labels: Label Studio asks again and again."""

    def __init__(self) -> None:
        self._last: dict[int | None, Mapping[str, Mapping[str, str]]] = {}

    def tell(self, project: int | None, unmapped: Mapping[str, Mapping[str, str]]) -> None:
        """Logs the labels that no class stands for, unless they were those the last time."""
        if self._last.get(project, {}) == unmapped:
            return
        if len(self._last) >= PROJECTS_TOLD:
            self._last.clear()
        self._last[project] = unmapped
        for control, reasons in unmapped.items():
            for label, reason in reasons.items():
                log.warning("project %s: label %r of %r: %s", project, label, control, reason)


def _authorized(user: str, password: str) -> bool:
    given = request.authorization
    if given is None or given.type != "basic":
        return False
    # Both are compared, in constant time, so that neither can be guessed a letter at a time.
    same = [
        hmac.compare_digest((given.username or "").encode(), user.encode()),
        hmac.compare_digest((given.password or "").encode(), password.encode()),
    ]
    return all(same)


def _gone(connection: Any) -> Callable[[], bool]:
    """Whether the other end of a socket has closed it; a client that closes its half of it while it
    waits for the answer counts as gone too."""
    if connection is None:  # not served by gunicorn: a test
        return lambda: False
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return lambda: bool(poll.poll(0))


def _json() -> Any:
    """The request's body; None where it is no JSON."""
    # Werkzeug cuts a body of unknown length off at the limit, and says nothing.
    if request.content_length is None and len(request.get_data()) >= MAX_BODY:
        raise RequestEntityTooLarge
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def _body() -> dict[str, Any]:
    body = _json()
    if not isinstance(body, dict):
        raise BadRequest("expected a JSON object as the body")
    return body


def _action() -> str:
    body = _json()
    return str(body.get("action", "")) if isinstance(body, dict) else ""


def _trains() -> bool:
    """Whether the request, unless it is large, is what the button that starts training sends."""
    return _small() and _action() == "START_TRAINING"


def _small() -> bool:
    """Whether all of the request has arrived when it gets a thread; see `ls_yolo.worker`."""
    if request.content_length is None:
        return "Transfer-Encoding" not in request.headers
    return request.content_length <= SMALL_BODY


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key) or ""
    if not isinstance(value, str):
        raise BadRequest(f"{key}: found {type(value).__name__}, expected text")
    return value


def _project(body: dict[str, Any]) -> int | None:
    """The project's id: Label Studio writes ``<id>.<time of creation>``."""
    number = re.match(r"([0-9]{1,18})(\.|$)", str(body.get("project") or ""))
    return int(number[1]) if number else None
