"""The routes of the status page. It reads; what it is told, it keeps in memory alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException

from ls_yolo import metrics
from ls_yolo.errors import RequestError
from ls_yolo.server import base
from ls_yolo.server.openapi import TEXT, Operation, json_answer, list_of, object_of
from ls_yolo.server.status import charts, jobs, projects
from ls_yolo.server.status.board import Board
from ls_yolo.server.status.trying import MOST_BYTES, Tried

MORE_BYTES = 64 * 1024
"""What a form may have beside its image, in bytes."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""What a browser may do with the page: nothing from outside, no script or style but its own."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

JOB = object_of(
    {"project": {"type": "integer"}, "version": TEXT, "done": {"type": "integer"}},
    silent={"type": "number", "description": "Seconds since it reported"},
)
FOUND = object_of(
    {"model": TEXT, "width": {"type": "integer"}, "height": {"type": "integer"}},
    boxes=list_of({"type": "object"}),
    classes=list_of({"type": "object"}),
)
FORM = object_of(
    {"image": {"type": "string", "format": "binary", "description": "At most 32 MiB"}},
    model=TEXT | {"description": "A name of models.yaml; left out or empty: the default"},
    conf={
        "type": "string",
        "description": "What a score must exceed, 0 to 1; left out or empty: the model's own",
    },
)


@dataclass(frozen=True)
class ModelRow:
    """A model as the page shows it. rate: images a second of late. engine, device: what runs it."""

    name: str
    version: str
    state: str
    error: str
    task: str
    engine: str
    device: str
    memory: str
    classes: Sequence[str]
    rate: float


def wants_page() -> bool:
    """Whether who asks would rather have a page than JSON, which all but browsers get."""
    kinds = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(kinds) == "text/html"


class StatusPage:
    """The page of ``service`` (see `ls_yolo.server.routes.Service`) and ``board``."""

    def __init__(self, service: Any, board: Board) -> None:
        self._service = service
        self._board = board

    def routes(self) -> Blueprint:
        """All routes but ``/`` itself, which is also for machines."""
        routes = Blueprint(
            "status", __name__, template_folder="templates", static_folder="static",
            static_url_path="/static",
        )  # fmt: skip
        routes.add_app_template_filter(charts.number, "number")
        routes.add_app_template_filter(duration)

        @routes.post("/try")
        @Operation(
            "What a model says of an image, which is not kept",
            {
                200: json_answer(FOUND, "As `ls-yolo predict` prints it. HTML for browsers.")
                | {"description": "As `ls-yolo predict` prints it. HTML for browsers."},
            },
            errors=(404, 503),
            body=FORM,
            media="multipart/form-data",
            slow=True,
            of_models=False,
        )
        def attempt() -> Any:
            return self._attempt()

        @routes.post("/jobs")
        @Operation(
            "What a run of bulk work says of itself, every few seconds",
            {200: json_answer(object_of({"status": {"const": "ok"}}), "It is shown for a while.")},
            body=jobs.REPORT,
            of_models=False,
        )
        def report() -> Any:
            self._board.jobs.report(base.object_body())
            return jsonify(status="ok")

        @routes.get("/jobs")
        @Operation(
            "The bulk work of the last ten minutes",
            {200: json_answer(object_of({"jobs": list_of(JOB)}), "A run each.")},
            of_models=False,
        )
        def all_jobs() -> Any:
            return jsonify(jobs=self._board.jobs.all())

        return routes

    def show(
        self,
        tried: Tried | None = None,
        fault: str = "",
        status: int = 200,
        chosen: Mapping[str, str] = MappingProxyType({}),
    ) -> Response:
        """The page; with what was ``tried``, or the ``fault`` of that, and what was ``chosen`` for
        it: the form's fields by name."""
        board, now = self._board, time.time()
        found = self._service.status()
        answer = board.projects.get()
        trier = board.trier
        text = render_template(
            "status/page.html",
            name=self._service.name,
            now=now,
            up=now - board.began,
            fault=found["error"],
            models=rows(found["models"], board.history.rates()),
            process=process(),
            charts=charts.charts(board.history.points, now),
            size=(charts.WIDTH, charts.HEIGHT),
            jobs=board.jobs.all(),
            projects=projects.shown(answer.projects, found["models"], board.default),
            answer=answer,
            errors=board.errors.all(),
            choices=trier.models if trier else [],
            chosen=chosen.get("model", ""),
            conf=chosen.get("conf", ""),
            most=MOST_BYTES >> 20,
            tried=tried,
            try_fault=fault,
        )
        response = make_response(text, status)
        response.headers.update(HEADERS)
        return response

    def _attempt(self) -> Any:
        chosen: Mapping[str, str] = {}
        try:
            # What is too large is found here: the file, with its form, is read.
            request.max_content_length = MOST_BYTES + MORE_BYTES
            chosen = request.form
            tried = self._try()
        except (RequestError, HTTPException) as error:
            if not wants_page():
                raise
            if isinstance(error, RequestError):
                metrics.count_error(error)
                status, why = error.status, str(error)
            else:
                status, why = error.code or 400, str(error.description)
            return self.show(fault=why, status=status, chosen=chosen)
        return self.show(tried, chosen=chosen) if wants_page() else jsonify(tried.as_json())

    def _try(self) -> Tried:
        trier = self._board.trier
        if trier is None:
            raise BadRequest("a class of your own (MODEL_CLASS) is not tried here; use /predict")
        file = request.files.get("image")
        if file is None or not (data := file.read()):
            raise BadRequest("image: found none, expected the file of an image")
        gone = base.client_gone(request.environ.get("gunicorn.socket"))
        names = trier.models
        name = request.form.get("model") or (names[0] if names else "")
        return trier(name, data, _conf(request.form.get("conf", "")), gone)


def _conf(text: str) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise BadRequest(f"conf: found {text!r:.40}, expected a number from 0 to 1")
    return number


def rows(found: Sequence[Mapping[str, Any]], rates: Mapping[str, float]) -> list[ModelRow]:
    """The models that `Service.status` tells of, with images a second by name."""
    return [
        ModelRow(
            name=row["name"],
            version=row["version"],
            state=row["state"],
            error=row["error"],
            task=row.get("task", ""),
            engine=(parts := engine_and_device(row.get("engine", "")))[0],
            device=parts[1],
            memory=f"about {row['memory_mb']} MB" if row.get("memory_mb") else "",
            classes=row.get("classes", ()),
            rate=rates.get(row["name"], 0.0),
        )
        for row in found
    ]


def engine_and_device(description: str) -> tuple[str, str]:
    """What runs a model and on what, of an engine's description; all of it is the engine where it
    does not say on what. What is missing stands after a semicolon, and stays with the engine."""
    found, semicolon, missing = description.partition("; ")
    engine, _, device = found.partition(" on ")
    if not device and found.endswith(" cores"):
        engine, _, cores = found.rpartition(", ")
        device = f"CPU, {cores}"
    return engine + semicolon + missing, device


def process() -> list[tuple[str, str]]:
    """What memory the process and its GPUs have taken, for people."""
    taken = metrics.REGISTRY.get_sample_value("process_resident_memory_bytes")
    found = [("Memory of the process", _gigabytes(taken))] if taken else []
    gpus: dict[str, dict[str, float]] = {}
    for family in metrics.REGISTRY.restricted_registry(["ls_yolo_gpu_memory_bytes"]).collect():
        for sample in family.samples:
            gpus.setdefault(sample.labels["device"], {})[sample.labels["kind"]] = sample.value
    for device, of in gpus.items():
        used = f"{_gigabytes(of['total'] - of['free'])} of {_gigabytes(of['total'])}"
        found.append((f"Memory of {device}", used))
    return found


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """A time as people say it, in one unit or two."""
    seconds = round(seconds)
    for unit, length, below, smaller in (
        ("d", 86400, 3600, "h"),
        ("h", 3600, 60, "min"),
        ("min", 60, 1, "s"),
    ):
        if seconds >= length:
            rest = seconds % length // below
            return f"{seconds // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
