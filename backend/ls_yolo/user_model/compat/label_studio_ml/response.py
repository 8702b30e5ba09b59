"""The answer of a model."""

from __future__ import annotations

from label_studio_sdk.label_interface.objects import PredictionValue
from pydantic import BaseModel, ConfigDict

SingleTaskPredictions = list[PredictionValue] | PredictionValue


class ModelResponse(BaseModel):
    """``predictions``: for each task, in order, one prediction or a list of them.

    ``model_version`` is that of every prediction that has none of its own.
    """

    # pydantic keeps names that begin with "model_" for itself unless told not to.
    model_config = ConfigDict(protected_namespaces=())

    model_version: str | None = None
    predictions: list[SingleTaskPredictions]

    def has_model_version(self) -> bool:
        return bool(self.model_version)

    def update_predictions_version(self) -> None:
        """Gives ``model_version`` to every prediction that has none."""
        for item in self.predictions:
            for prediction in item if isinstance(item, list) else [item]:
                prediction.model_version = prediction.model_version or self.model_version

    def set_version(self, version: str) -> None:
        self.model_version = version
        self.update_predictions_version()
