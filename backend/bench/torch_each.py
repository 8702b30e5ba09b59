"""The comparison of `make bench`: a model.py that loads its weights in each request, and predicts
one task after the other by ultralytics on torch. MODEL_CLASS=torch_each:TorchEach serves it."""

from __future__ import annotations

from typing import Any

from label_studio_ml.model import LabelStudioMLBase  # type: ignore[import-not-found,unused-ignore]
from label_studio_ml.response import ModelResponse  # type: ignore[import-not-found,unused-ignore]
from ultralytics import YOLO


class TorchEach(LabelStudioMLBase):  # type: ignore[misc,unused-ignore]
    def setup(self) -> None:
        self.set("model_version", "torch in each request")

    def predict(self, tasks: list[dict[str, Any]], **_: Any) -> ModelResponse:
        model = YOLO("yolov8n.pt")
        return ModelResponse(predictions=[self._predict(model, task) for task in tasks])

    def _predict(self, model: Any, task: dict[str, Any]) -> dict[str, Any]:
        path = self.get_local_path(task["data"]["image"], task_id=task.get("id"))
        (found,) = model.predict(path, conf=0.25, verbose=False)
        height, width = found.orig_shape
        regions = []
        for box in found.boxes:
            left, top, right, bottom = box.xyxy[0].tolist()
            regions.append(
                {
                    "from_name": "l",
                    "to_name": "image",
                    "type": "rectanglelabels",
                    "original_width": width,
                    "original_height": height,
                    "score": float(box.conf),
                    "value": {
                        "rectanglelabels": [model.names[int(box.cls)]],
                        "x": 100 * left / width,
                        "y": 100 * top / height,
                        "width": 100 * (right - left) / width,
                        "height": 100 * (bottom - top) / height,
                        "rotation": 0,
                    },
                }
            )
        scores = [region["score"] for region in regions]
        return {"result": regions, "score": sum(scores) / len(scores) if scores else 0.0}
