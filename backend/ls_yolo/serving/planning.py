"""Which models answer a labeling config, and how their classes become its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ls_yolo import controls
from ls_yolo.controls import video_rectangle
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.label_config import Control, LabelConfigError
from ls_yolo.serving import tracking
from ls_yolo.serving.registry import Model, Registry, join_versions
from ls_yolo.text import some

LEAST_SLICE = 64
"""The least side of a slice, in pixels."""


@dataclass(frozen=True)
class ControlBinding:
    """A control and a model that draws for it: class index to label, and the lowest score.

    ``boxes``: class index to label of the control that takes the boxes of bodies, if any.
    ``slice``: the side of the slices that larger images are cut into, in pixels; None: none are.
    ``merge``: above which overlap (IoU, 0 to 1) what several models say is one; None: it is not.
    ``tracker``: what follows objects through a video, where the control needs it.
    """

    control: Control
    model: Model
    labels: Mapping[int, str]
    conf: float
    boxes: Mapping[int, str] | None = None
    slice: int | None = None
    merge: float | None = None
    tracker: tracking.Parameters | None = None

    def labels_of(self, control: Control) -> Mapping[int, str]:
        """Class index to label, for ``control`` as a task has it: with labels of the task's own."""
        if not control.own:
            return self.labels
        return _labels(self.model, controls.match(control, self.model.names.values()).labels)


@dataclass(frozen=True)
class Plan:
    """What answers a labeling config. ``unmapped``: control, then label, to the reason.

    ``waiting``: why there is nothing to draw yet, else empty; then ``version`` says it too, which
    Label Studio shows beside the connection.
    """

    bindings: tuple[ControlBinding, ...]
    version: str
    unmapped: Mapping[str, Mapping[str, str]]
    waiting: str = ""


def plan(registry: Registry, config: str, url: Sequence[str], extra_params: Sequence[str]) -> Plan:
    """Which models draw for which controls of the labeling config ``config``.

    Raises:
        LabelConfigError: the configuration cannot be used, or no label maps to any class.
        UnknownModel: a model that was asked for is not there.
    """
    try:
        drawn = controls.drawn(config)
    except controls.NothingToDraw as error:
        for name in selection.choose(url, extra_params, registry.default):
            registry.get(name)
        return Plan((), f"waiting for something to draw: {error}", {}, str(error))
    bindings, classes, without = [], set(), []
    unmapped: dict[str, Mapping[str, str]] = {}
    asked = [(control, _models(registry, control, url, extra_params)) for control in drawn]
    fitting = [[one for one in of if controls.takes(control, one.task)] for control, of in asked]
    fit = [control for control, models in zip(drawn, fitting, strict=True) if models]
    kept = controls.untaken(fit)
    for (control, connected), models in zip(asked, fitting, strict=True):
        if models and control not in kept:
            continue  # another control's boxes are drawn in it
        if not models and control.flag("smart") and not control.model_path:
            continue  # a tool for people, whose answers other controls draw
        if not models:
            tasks = [(model.entry.name, model.task) for model in connected]
            why = controls.no_task(control, tasks)
            if control.model_path:
                raise LabelConfigError(why)
            unmapped[control.from_name] = {label.value: why for label in control.labels}
            without.append(why)
            continue
        known = [name for model in models for name in model.names.values()]
        mapped = controls.match(control, known)
        classes.update(known)
        boxes, missing = controls.boxes(control, config, mapped.labels)
        if mapped.unmapped or missing:
            unmapped[control.from_name] = {**mapped.unmapped, **missing}
        lowest, side = control.score_threshold, _side(control)
        tracker = _tracker(registry, control)
        bindings += [
            ControlBinding(
                control,
                model,
                _labels(model, mapped.labels),
                model.entry.conf if lowest is None else lowest,
                None if boxes is None else _labels(model, boxes),
                _slice(model, side),
                control.number("model_merge_iou", 0, 1),
                tracker,
            )
            for model in models
        ]
    if not bindings:
        raise LabelConfigError("; ".join(without))
    if not any(binding.labels or binding.control.own for binding in bindings):
        wanted = sorted({label.value for control in drawn for label in control.labels})
        raise LabelConfigError(
            f"no label maps to a class: the labels are {some(wanted)}; "
            f"the classes are {some(sorted(classes))}. "
            "Rename one or the other, or give the label predicted_values"
        )
    version = join_versions(binding.model.version for binding in bindings)
    return Plan(tuple(bindings), version, unmapped)


def _models(
    registry: Registry, control: Control, url: Sequence[str], extra_params: Sequence[str]
) -> list[Model]:
    if control.model_path:
        return [registry.by_path(control.model_path)]
    names = selection.choose(url, extra_params, registry.default)
    return [registry.get(name) for name in names]


def _tracker(registry: Registry, control: Control) -> tracking.Parameters | None:
    if control.tag.lower() != video_rectangle.CONTROL.tag.lower():
        return None
    return tracking.parameters(control, registry.root, tracking.built_in(), registry.custom)


def _side(control: Control) -> float | None:
    """The side of slices that the control asks for; 0: none."""
    side = control.number("model_slice", 0, 4096)
    if side is not None and 0 < side < LEAST_SLICE:
        raise LabelConfigError(
            f"model_slice of {control.from_name!r}: found {side:g}, expected 0, or "
            f"{LEAST_SLICE} to 4096: the side of a slice in pixels, not a number of slices"
        )
    return side


def _slice(model: Model, asked: float | None) -> int | None:
    if model.task in ("classify", "semantic"):  # of the image as a whole
        return None
    return model.entry.slice if asked is None else int(asked) or None


def _labels(model: Model, mapped: Mapping[str, str]) -> dict[int, str]:
    """Class index of ``model`` to label, of class name to label."""
    return {index: mapped[name] for index, name in model.names.items() if name in mapped}
