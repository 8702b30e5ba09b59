"""The models of models.yaml, as the routes ask for them."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from flask import Flask

from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.models.sam import SAM
from ls_yolo.server import routes
from ls_yolo.server.base import RequestLimiter
from ls_yolo.server.routes import Call
from ls_yolo.server.status.board import Board
from ls_yolo.serving import interactive
from ls_yolo.serving.batcher import Released
from ls_yolo.serving.clicks import Clicks
from ls_yolo.serving.loading import join_versions
from ls_yolo.serving.planning import Plan
from ls_yolo.serving.predictor import Predictor

log = logging.getLogger(__name__)
RELOAD_WITHIN = 60.0
"""Seconds that a request to reload waits for files that are still being written."""
PROJECTS_TOLD = 1000
"""Of how many projects it is kept what was said of their labels."""


class ModelService:
    """See `ls_yolo.server.routes.Service`. ``choices``: what connections of projects name."""

    name = "ls-yolo"

    def __init__(self, predictor: Predictor, choices: ModelChoices) -> None:
        self._predictor = predictor
        self._registry = predictor.registry
        self._choices = choices
        self._clicks = Clicks(predictor.reader)
        self._told = _Told()

    def check(self, models: Sequence[str]) -> None:
        for name in models:
            self._registry.check(name)

    def status(self, models: Sequence[str] = ()) -> dict[str, Any]:
        found = self._registry.status()
        default = self._registry.default
        rows = [
            {**row, "default": row["name"] == default}
            for row in found["models"]
            if not models or row["name"] in models
        ]
        return found | {"models": rows}

    def reload(self) -> dict[str, Any]:
        return self._registry.refresh(RELOAD_WITHIN)

    def versions(self, models: Sequence[str]) -> list[str]:
        if models:
            names = self._registry.predicting(models)
            return [join_versions(map(self._registry.version, names))]
        rows = self.status()["models"]
        return [row["version"] for row in rows if row["version"] and row.get("task") != SAM]

    def setup(self, call: Call) -> dict[str, Any]:
        # With models in the URL, extra_params may be anything: they do not choose.
        given = call.body.get("extra_params")
        extra = () if call.models else self._choices.remember(call.project, given)
        if not call.config:
            # Label Studio's own test of a connection has no project and so no configuration.
            names = self._registry.predicting(call.models or extra or (self._registry.default,))
            return {"model_version": join_versions(map(self._registry.version, names))}
        found = self._plan(call, extra)
        self._told.tell(call.project, found)
        return {
            "model_version": found.version,
            "unmapped": found.unmapped,
            "warnings": list(found.warnings),
            "waiting": found.waiting,
        }

    def predict(
        self, call: Call, tasks: Sequence[dict[str, Any]], gone: Callable[[], bool]
    ) -> list[Any]:
        extra = () if call.models else self._choices.recall(call.project, call.host)
        params = call.body.get("params")
        params = params if isinstance(params, dict) else {}
        drawn = interactive.prompts(params.get("context")) if params else None
        likeness = params.get("likeness") is True  # bulk work asks for it
        for _ in range(3):  # a model may be replaced between plan and prediction
            with contextlib.suppress(Released):
                plan = self._plan(call, extra)
                if drawn is not None and len(tasks) == 1 and (plan.sams or not plan.waiting):
                    return [self._clicks.answer(tasks[0], plan, drawn, gone)]
                return self._predictor.predict(tasks, plan, gone, likeness)
        raise Released("the models change faster than they can answer; try again shortly")

    def webhook(self, call: Call) -> tuple[dict[str, Any], int]:
        if call.body.get("action") == "START_TRAINING":
            return {"error": "training is not offered by this backend"}, 501
        return {"status": "ignored"}, 200

    def _plan(self, call: Call, extra: tuple[str, ...]) -> Plan:
        return self._predictor.plan(call.config, call.models, extra)


def build(
    predictor: Predictor,
    choices: ModelChoices,
    user: str,
    password: str,
    places: RequestLimiter,
    board: Board | None = None,
) -> Flask:
    """The application around its parts; see `ls_yolo.server.routes.build`."""
    return routes.build(ModelService(predictor, choices), user, password, places, board)


class _Told:
    """What the log has of each project's labels: Label Studio asks again and again."""

    def __init__(self) -> None:
        self._last: OrderedDict[int | None, Sequence[str]] = OrderedDict()

    def tell(self, project: int | None, plan: Plan) -> None:
        """Logs what is not drawn and why, unless that was so the last time."""
        lines = plan.faults
        lines += [f"waiting for something to draw: {plan.waiting}"] if plan.waiting else []
        told = self._last.pop(project, []) == lines
        self._last[project] = lines
        while len(self._last) > PROJECTS_TOLD:
            self._last.popitem(last=False)  # the one not asked for longest
        for line in () if told else lines:
            log.warning("project %s: %s", project, line)
