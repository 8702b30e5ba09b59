"""What all routes are behind: authentication, limits, errors as JSON."""

from __future__ import annotations

import hmac
import logging
import re
import select
import threading
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    HTTPException,
    RequestEntityTooLarge,
)

from ls_yolo import SMALL_BODY, logs, metrics
from ls_yolo.engines.base import EngineError
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.labelstudio.selection import SelectionError
from ls_yolo.server import openapi
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.predictor import ClientGone, PredictionError
from ls_yolo.serving.registry import (
    ModelUnavailable,
    UnknownModel,
)

log = logging.getLogger(__name__)

WORKER_BOOT_ERROR = 3
"""What gunicorn takes a worker's exit with this code for: it cannot start at all."""
MAX_BODY = 64 * 1024 * 1024
"""The largest request body, in bytes: 250 tasks with their annotations are far below it."""
RETRY_AFTER = "1"
"""Seconds after which a client that was turned away may try again."""
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


class RequestLimiter:
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


def shell(user: str, password: str, places: RequestLimiter) -> Flask:
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
        if name in OPEN or not password or authorized(user, password):
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


def authorized(user: str, password: str) -> bool:
    given = request.authorization
    if given is None or given.type != "basic":
        return False
    # Both are compared, in constant time, so that neither can be guessed a letter at a time.
    same = [
        hmac.compare_digest((given.username or "").encode(), user.encode()),
        hmac.compare_digest((given.password or "").encode(), password.encode()),
    ]
    return all(same)


def client_gone(connection: Any) -> Callable[[], bool]:
    """Whether the other end of a socket has closed it; a client that closes its half of it while it
    waits for the answer counts as gone too."""
    if connection is None:  # not served by gunicorn: a test
        return lambda: False
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return lambda: bool(poll.poll(0))


def json_body() -> Any:
    """The request's body; None where it is no JSON."""
    # Werkzeug cuts a body of unknown length off at the limit, and says nothing.
    if request.content_length is None and len(request.get_data()) >= MAX_BODY:
        raise RequestEntityTooLarge
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def object_body() -> dict[str, Any]:
    body = json_body()
    if not isinstance(body, dict):
        raise BadRequest("expected a JSON object as the body")
    return body


def action() -> str:
    body = json_body()
    return str(body.get("action", "")) if isinstance(body, dict) else ""


def _trains() -> bool:
    """Whether the request, unless it is large, is what the button that starts training sends."""
    return _small() and action() == "START_TRAINING"


def _small() -> bool:
    """Whether all of the request has arrived when it gets a thread; see `ls_yolo.server.worker`."""
    if request.content_length is None:
        return "Transfer-Encoding" not in request.headers
    return request.content_length <= SMALL_BODY


def text_field(body: dict[str, Any], key: str) -> str:
    value = body.get(key) or ""
    if not isinstance(value, str):
        raise BadRequest(f"{key}: found {type(value).__name__}, expected text")
    return value


def project_id(body: dict[str, Any]) -> int | None:
    """The project's id: Label Studio writes ``<id>.<time of creation>``."""
    number = re.match(r"([0-9]{1,18})(\.|$)", str(body.get("project") or ""))
    return int(number[1]) if number else None
