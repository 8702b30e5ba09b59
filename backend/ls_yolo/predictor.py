"""Tasks in, predictions out: which models answer a labelling configuration, and with what."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls_yolo import labels, media, selection
from ls_yolo.controls import CONTROLS, Region
from ls_yolo.labels import Control, LabelConfigError
from ls_yolo.media import MediaError
from ls_yolo.registry import Model, Registry, join_versions
from ls_yolo.studio import StudioError

log = logging.getLogger(__name__)


class PredictionError(RuntimeError):
    """No task of a request could be predicted, and not for the tasks' own fault."""


@dataclass(frozen=True)
class Drawing:
    """A control and a model that draws for it: class index to label, and the lowest score."""

    control: Control
    model: Model
    labels: Mapping[int, str]
    conf: float


@dataclass(frozen=True)
class Plan:
    """What answers a labelling configuration. ``unmapped``: control, then label, to the reason."""

    drawings: tuple[Drawing, ...]
    version: str
    unmapped: Mapping[str, Mapping[str, str]]


class Predictor:
    """Predicts tasks with the models of a registry."""

    def __init__(
        self, registry: Registry, root: Path, studio: media.Fetcher | None, studio_url: str
    ) -> None:
        self.registry = registry
        self._root = root
        self._studio = studio
        self._studio_url = studio_url

    def plan(self, config: str, url: Sequence[str], extra_params: Sequence[str]) -> Plan:
        """Which models draw for which controls of the labelling configuration ``config``.

        Raises:
            LabelConfigError: no control can be drawn for, or no label maps to any class.
            UnknownModel: a model that was asked for is not there.
        """
        controls = labels.parse(config)
        drawn = [c for c in controls if c.tag in CONTROLS and not c.skipped]
        if not drawn:
            found = ", ".join(sorted({control.tag for control in controls})) or "none"
            raise LabelConfigError(
                f"controls on an image: found {found}, expected one of {', '.join(CONTROLS)}"
            )
        drawings, unmapped, classes = [], {}, set()
        for control in drawn:
            models = self._models(control, url, extra_params)
            known = [name for model in models for name in model.names.values()]
            mapped = labels.match(control, known)
            classes.update(known)
            if mapped.unmapped:
                unmapped[control.from_name] = mapped.unmapped
            drawings += [
                Drawing(
                    control,
                    model,
                    {i: mapped.labels[n] for i, n in model.names.items() if n in mapped.labels},
                    model.entry.conf
                    if control.score_threshold is None
                    else control.score_threshold,
                )
                for model in models
            ]
        if not any(drawing.labels for drawing in drawings):
            wanted = sorted({label.value for control in drawn for label in control.labels})
            raise LabelConfigError(
                f"no label maps to a class: the labels are {_some(wanted)}; "
                f"the classes are {_some(sorted(classes))}. "
                "Rename one or the other, or give the label predicted_values"
            )
        version = join_versions(drawing.model.version for drawing in drawings)
        return Plan(tuple(drawings), version, unmapped)

    def _models(
        self, control: Control, url: Sequence[str], extra_params: Sequence[str]
    ) -> list[Model]:
        if control.model_path:
            return [self.registry.by_path(control.model_path)]
        names = selection.choose(url, extra_params, self.registry.default)
        return [self.registry.get(name) for name in names]

    def predict(self, tasks: Sequence[Mapping[str, Any]], plan: Plan) -> list[dict[str, Any]]:
        """One prediction a task, in order.

        A task that fails has an empty result, a score of None and an ``error``; in Label Studio,
        where an image with nothing on it has the score 0, that tells the two apart.

        Raises:
            PredictionError: every task failed, and not for its own fault (the engine, Label Studio,
                the token), so that nothing should be stored.
        """
        answers, broken, why = [], 0, ""
        for task in tasks:
            name = task.get("id", "?")
            try:
                answers.append(_prediction(self._regions(task, plan), plan.version))
                continue
            except MediaError as error:
                why = str(error)
                log.warning("task %s: empty prediction: %s", name, why)
            except StudioError as error:
                broken, why = broken + 1, str(error)
                log.warning("task %s: empty prediction: %s", name, why)
            except Exception as error:
                broken, why = broken + 1, f"the engine failed: {type(error).__name__}"
                log.exception("task %s: empty prediction: the engine failed", name)
            answers.append(
                {"result": [], "score": None, "model_version": plan.version, "error": why}
            )
        if tasks and broken == len(tasks):
            raise PredictionError(f"no task could be predicted: {why}; the backend's log says more")
        return answers

    def _regions(self, task: Mapping[str, Any], plan: Plan) -> list[Region]:
        regions: list[Region] = []
        images: dict[str, Any] = {}
        done: dict[tuple[str, str], Any] = {}
        for drawing in plan.drawings:
            key, model = drawing.control.key, drawing.model
            if key not in images:
                images[key] = self._image(task, key)
            image = images[key]
            if (key, model.version) not in done:
                # The lowest of the thresholds that ask for this model on this image: one inference.
                conf = min(
                    d.conf for d in plan.drawings if d.control.key == key and d.model is model
                )
                done[key, model.version] = model.owner.predict(
                    [image], conf, model.entry.iou, model.entry.imgsz
                )[0]
            boxes = done[key, model.version].above(drawing.conf)
            height, width = image.shape[:2]
            draw = CONTROLS[drawing.control.tag]
            regions += draw(drawing.control, boxes, drawing.labels, width, height)
        return regions

    def _image(self, task: Mapping[str, Any], key: str) -> Any:
        data = task.get("data")
        url = data.get(key) if isinstance(data, Mapping) else None
        if not isinstance(url, str) or not url:
            found = repr(url) if url is None or url == "" else type(url).__name__
            raise MediaError(f"data.{key}: found {found}, expected the URL of an image")
        return media.decode(media.read(url, self._root, self._studio, self._studio_url))


def _prediction(regions: list[Region], version: str) -> dict[str, Any]:
    scores = [region["score"] for region in regions]
    mean = sum(scores) / len(scores) if scores else 0.0
    return {"result": regions, "score": mean, "model_version": version}


def _some(names: Sequence[str], most: int = 12) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest
