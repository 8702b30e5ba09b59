"""Predicts in this process, with models of its own: what a job on a GPU node does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ls_yolo.engines.base import EngineError
from ls_yolo.errors import RequestError
from ls_yolo.jobs.predicting import (
    Answer,
    Busy,
    Described,
    Lost,
    PredictingError,
    Target,
    answer_of,
)
from ls_yolo.labelstudio.bulk import Task
from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.planning import Plan
from ls_yolo.serving.predictor import PredictionError, Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import Registry


class Here:
    """Has tasks predicted by this process. Models are loaded by `describe`, images decoded in
    threads, as the backend does.

    Args:
        values: the backend's settings.
        studio: where uploads and files of storages are fetched.
        target: what is predicted.
        likeness: whether images are hashed.
    """

    def __init__(
        self, values: Mapping[str, Any], studio: Studio, target: Target, likeness: bool = False
    ) -> None:
        self._values = values
        self._studio = studio
        self._target = target
        self._likeness = likeness
        self._predictor: Predictor | None = None
        self._plan: Plan | None = None

    def describe(self) -> Described:
        """See `Predicting.describe`."""
        try:
            if self._predictor is None:
                registry = Registry.read(self._values, command=True)
                reader = ImageReader.read(self._values, self._studio)
                self._predictor = Predictor(registry, reader, score=self._values["PRELABEL_SCORE"])
            plan = self._predictor.plan(self._target.config, self._target.models, ())
        except (RequestError, LabelConfigError, EngineError) as error:
            raise PredictingError(str(error)) from None
        self._plan = plan
        return Described(plan.version, plan.waiting, plan.unmapped, plan.warnings)

    def predict(self, tasks: Sequence[Task]) -> list[Answer]:
        """See `Predicting.predict`."""
        assert self._predictor and self._plan, "describe comes first"
        project = self._target.id
        asked = [{"id": task.id, "data": task.data, "project": project} for task in tasks]
        try:
            rows = self._predictor.predict(asked, self._plan, likeness=self._likeness)
        except (QueueFull, Released) as error:
            raise Busy(str(error)) from None
        except PredictionError as error:
            raise Lost(str(error)) from None
        except LabelConfigError as error:
            raise PredictingError(str(error)) from None
        return [answer_of(row) for row in rows]
