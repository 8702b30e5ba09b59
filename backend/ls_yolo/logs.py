"""What the backend says: a line a record, with the request it belongs to and without secrets."""

from __future__ import annotations

import contextvars
import copy
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pythonjsonlogger.json as json_log
from flask import Flask, Response, g, request, request_started

from ls_yolo.redaction import Redactor

log = logging.getLogger("ls_yolo.request")

HEADER = "X-Request-ID"
"""The header that a request's id comes and goes in."""
QUIET = frozenset({"health", "livez", "readyz", "metrics", "root", "static", "report"})
"""Endpoints that machines and open pages ask for all day: a line at DEBUG, unless they fail."""

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""The id of the request that is being answered; a thread of a pool has it by ``copy_context``."""


class JsonFormatter(json_log.JsonFormatter):
    """A JSON object a line, without secrets, its fields in the order in which they are read.

    Args:
        redactor: takes the secrets out; unless given, what looks like one.
    """

    def __init__(self, redactor: Redactor | None = None) -> None:
        super().__init__(json_ensure_ascii=False)
        self._clean = redactor or Redactor()

    def format(self, record: logging.LogRecord) -> str:
        record = copy.copy(record)
        try:
            record.msg = record.getMessage()
        except Exception:  # a record whose arguments do not fit is still worth a line
            record.msg = str(record.msg)
        record.args = None
        line = super().format(record)
        # JSON leaves these as they are, and some readers take them for the end of a line.
        for end in "\x7f\x85\u2028\u2029":
            line = line.replace(end, f"\\u{ord(end):04x}")
        # Half of a pair of surrogates, from a broken file name, cannot be written as UTF-8.
        return line.encode("utf-8", "backslashreplace").decode()

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        moment = datetime.fromtimestamp(record.created, UTC)
        found = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.message,
        }
        if name := request_id.get():
            found["request_id"] = name
        found |= getattr(record, "fields", {})
        # As the library has them: formatted.
        for ours, theirs in (("exception", "exc_info"), ("stack", "stack_info")):
            if message_dict.get(theirs):
                found[ours] = message_dict[theirs]
        for key, value in found.items():
            number = isinstance(value, int | float)
            log_data[str(key)] = value if number else self._clean(str(value))


class TextFormatter(JsonFormatter):
    """A line for people; the lines of an exception follow it."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = json.loads(super().format(record))
        del fields["time"]
        line = f"{fields.pop('level')} {fields.pop('logger')}: {fields.pop('message')}"
        more = [fields.pop(key) for key in ("exception", "stack") if key in fields]
        line += "".join(f" {key}={value}" for key, value in fields.items())
        # What a task or a client says must not look like a line of its own.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        return "\n".join([line, *more]).encode("utf-8", "backslashreplace").decode()


def redactor(values: Mapping[str, Any]) -> Redactor:
    """What takes the secrets of the settings ``values`` out of text."""
    secrets = (values.get("LABEL_STUDIO_API_KEY"), values.get("BASIC_AUTH_PASS"))
    return Redactor(secret for secret in secrets if secret)


def formatter(values: Mapping[str, Any]) -> logging.Formatter:
    """The formatter that the settings ``values`` ask for: LOG_FORMAT, and the secrets in them."""
    kind = TextFormatter if values["LOG_FORMAT"] == "text" else JsonFormatter
    return kind(redactor(values))


def configure(values: Mapping[str, Any]) -> None:
    """Sends every record to standard error as the settings ``values`` (LOG_LEVEL, ...) ask."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(values))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(str(values["LOG_LEVEL"]).upper())
    for name in ("httpx", "httpcore"):  # each request at INFO, and its headers at DEBUG
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # Gunicorn has handlers of its own, for text.
    server = logging.getLogger("gunicorn.error")
    server.handlers.clear()
    server.propagate = True


def note(**fields: Any) -> None:
    """Adds ``fields`` to the line of the request that is being answered: ``note(tasks=8)``."""
    g.setdefault("log_fields", {}).update(fields)


def install(app: Flask) -> None:
    """Gives each request of ``app`` an id, in its records and its answer, and a line at its end.

    The line has method, path without query, status, duration in milliseconds and what `note` was
    told; never a body or a header.
    """

    # A signal comes before all of before_request, where authentication may end the request.
    def begin(sender: Flask, **more: Any) -> None:
        g.log_begin = time.perf_counter()
        given = request.headers.get(HEADER, "")
        # What a proxy in front has chosen, so that its log and this one can be joined.
        sane = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", given)
        request_id.set(given if sane else uuid.uuid4().hex)

    request_started.connect(begin, app, weak=False)

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers[HEADER] = request_id.get()
        name = (request.endpoint or "").rpartition(".")[2]
        status = response.status_code
        log.log(
            logging.DEBUG if name in QUIET and status < 400 else logging.INFO,
            "%s %s %d",
            request.method,
            request.path,
            status,
            extra={
                "fields": {
                    "method": request.method,
                    "path": request.path,
                    "status": status,
                    "duration_ms": round((time.perf_counter() - g.log_begin) * 1000, 1),
                    **g.get("log_fields", {}),
                }
            },
        )
        return response

    @app.teardown_request
    def forget(error: BaseException | None) -> None:
        request_id.set("")  # the thread goes on to other work
