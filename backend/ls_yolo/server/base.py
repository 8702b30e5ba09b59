"""What all routes are behind: authentication, limits, errors as JSON."""

from __future__ import annotations

import hmac
import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, g, jsonify, request, request_started
from prometheus_client.exposition import choose_encoder
from werkzeug.exceptions import (
    BadRequest,
    ClientDisconnected,
    Forbidden,
    HTTPException,
    RequestEntityTooLarge,
)

from ls_yolo import SMALL_BODY, logs, metrics
from ls_yolo.errors import RequestError
from ls_yolo.server import openapi
from ls_yolo.server.openapi import Operation
from ls_yolo.serving.batcher import QueueFull

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024 * 1024
"""The largest request body, in bytes: 250 tasks with their annotations are far below it."""
RETRY_AFTER = "1"
"""Seconds after which a client that was turned away may try again."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
REASON = 300
"""The most characters of an error that the status line has: proxies bound it."""


class RequestLimiter:
    """How many requests that may take long are worked for at a time: all but two of ``threads``.

    One of the two is for what is spared (``/setup``), so that predictions alone do not keep a
    project from opening. The other is always free for what is answered at once, 429 included.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._running = 0

    def take(self, spare: bool = False) -> None:
        """Takes a place, until it is given back; ``spare``: the one that is kept free too.

        Raises:
            QueueFull: none is free.
        """
        most = max(1, self._threads - (1 if spare else 2))
        with self._lock:
            if self._running >= most:
                raise QueueFull(
                    f"{self._running} requests run already, of {self._threads} THREADS; try again "
                    "shortly"
                )
            self._running += 1

    def give_back(self) -> None:
        """Gives a place back."""
        with self._lock:
            self._running -= 1


def shell(user: str, password: str, places: RequestLimiter) -> Flask:
    """What all routes are behind: authentication, limits, errors as JSON.

    Routes say by their `Operation` what they are: open, slow. An empty ``password``: no
    authentication.
    """
    app = Flask("ls_yolo", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    logs.install(app)
    observe(app)

    @app.before_request
    def authenticate() -> Response | None:
        asked = openapi.operation(app, request.endpoint)
        g.trusted = not password or _authorized(user, password)
        if g.trusted or (asked and asked.open):
            return None
        # Label Studio sends no authentication with the webhooks of tasks and annotations, which ask
        # for nothing here; an error would only fill its log. With a button's it does, whose body is
        # small: from strangers no other is read, since it need not have arrived yet.
        if _endpoint() == "webhook" and "Authorization" not in request.headers and not _trains():
            return jsonify(status="ignored")
        return unauthorized()

    @app.before_request
    def refuse_other_sites() -> None:
        # A browser sends the password along with what a page of another site has it post.
        if request.method not in SAFE and _from_another_site():
            raise Forbidden(
                f"found a request of the page {request.headers.get('Origin') or 'of another site'}"
                f", expected one of {request.host_url}; open the backend's own page and try there"
            )

    @app.before_request
    def admit() -> None:
        # Before the body is read: who sends it slowly takes a place, but never the last thread.
        asked = openapi.operation(app, request.endpoint)
        if not _small() or (asked and asked.slow):
            places.take(spare=_small() and asked is not None and asked.spare)
            g.place = places

    @app.teardown_request
    def leave(error: BaseException | None) -> None:
        if "place" in g:
            g.pop("place").give_back()

    @app.get("/openapi.json")
    @Operation("This description", {200: openapi.json_answer({"type": "object"}, "OpenAPI.")})
    def description() -> Any:
        return jsonify(openapi.describe(app))

    @app.errorhandler(Exception)
    def fail(error: Exception) -> Response | tuple[Response, int]:
        if isinstance(error, ClientDisconnected):
            return jsonify(error="the request did not arrive in whole, or not in time"), 408
        if isinstance(error, HTTPException):
            answer = jsonify(error=error.description)
            # Such as Allow, without which 405 is no help.
            answer.headers.extend(h for h in error.get_headers() if h[0] != "Content-Type")
            return answer, error.code or 500
        metrics.count_error(error)
        if isinstance(error, RequestError):
            kind = {"kind": metrics.kind_of(error)}
            log.warning("%s %r: %s", request.method, request.path, error, extra={"fields": kind})
            # What is wrong with an open route's models names others, which is not for everyone.
            text = str(error) if g.trusted else "more is said with the password"
            answer = jsonify(error=text)
            # Of an error Label Studio shows the status line and nothing else.
            answer.status = f"{error.status} {reason(text)}"
            if error.status == 429:
                answer.headers["Retry-After"] = RETRY_AFTER
            return answer
        log.exception("%s %r failed", request.method, request.path)
        return jsonify(error="the backend failed; its log says why"), 500

    return app


def unauthorized() -> Response:
    """The answer to who has not said user and password."""
    answer = jsonify(error="authentication is needed: BASIC_AUTH_USER and BASIC_AUTH_PASS of .env")
    answer.status_code = 401
    answer.headers["WWW-Authenticate"] = 'Basic realm="ls-yolo"'
    return answer


def _from_another_site() -> bool:
    """Whether a page of another origin has a browser send the request. Browsers that do not say so
    themselves name the page's origin; programs say neither."""
    said = request.headers.get("Sec-Fetch-Site")
    if said is not None:
        return said not in ("same-origin", "none")
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.host


def reason(text: str) -> str:
    """``text`` as a status line can have it: printable ASCII, in one line, `REASON` characters at
    most."""
    line = "".join(char if " " <= char <= "~" else "?" for char in " ".join(text.split()))
    return line if len(line) <= REASON else f"{line[: REASON - 3]}..."


def observe(app: Flask) -> None:
    """Counts and times the requests of ``app``, and adds ``/metrics``."""

    # A signal comes before all of before_request, where authentication may end the request.
    def begin(sender: Flask, **more: Any) -> None:
        g.metrics_begin = time.perf_counter()

    request_started.connect(begin, app, weak=False)

    @app.after_request
    def count(response: Response) -> Response:
        name = _endpoint()
        metrics.REQUESTS.labels(name, str(response.status_code)).inc()
        metrics.REQUEST_SECONDS.labels(name).observe(time.perf_counter() - g.metrics_begin)
        return response

    text = {"description": "All metrics.", "content": {"text/plain": {"schema": openapi.TEXT}}}

    @app.get("/metrics", endpoint="metrics")
    @Operation("Metrics for Prometheus", {200: text})
    def page() -> Response:
        encode, kind = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(metrics.REGISTRY), content_type=kind)


def _endpoint() -> str:
    """The name of the function that answers: a bounded set, unlike paths. none: no such address."""
    return (request.endpoint or "none").rpartition(".")[2]


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


def _action() -> str:
    body = json_body()
    return str(body.get("action", "")) if isinstance(body, dict) else ""


def _trains() -> bool:
    """Whether the request, unless it is large, is what the button that starts training sends."""
    return _small() and _action() == "START_TRAINING"


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
