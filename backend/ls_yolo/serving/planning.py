"""Which models answer a labeling config, and how their classes become its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ls_yolo import controls
from ls_yolo.controls import video_rectangle
from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.label_config import Control, LabelConfigError
from ls_yolo.serving import tracking
from ls_yolo.serving.loading import Model, SamModel, join_versions
from ls_yolo.serving.registry import ModelUnavailable, Registry
from ls_yolo.text import some

STRICT = (
    "Label Studio refuses where it checks predictions strictly "
    "(fflag_feat_utc_210_prediction_validation_15082025, which is off unless set)"
)
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
class SamBinding:
    """A control, and a SAM that draws in it what a person points at, under any label.

    ``load``: the SAM, loaded if it is not. Predictions do without it, so it is asked for late.
    """

    control: Control
    version: str
    load: Callable[[], SamModel]


@dataclass(frozen=True)
class Plan:
    """What answers a labeling config. ``unmapped``: control, then label that no class stands for,
    to the reason. ``warnings``: what else of it is not drawn, or may not be taken, a line each.

    ``waiting``: why there is nothing to predict yet, else empty; ``version`` then says it too,
    which Label Studio shows beside the connection, unless there are ``sams``: what answers smart
    tools besides.
    """

    bindings: tuple[ControlBinding, ...]
    version: str
    unmapped: Mapping[str, Mapping[str, str]]
    waiting: str = ""
    sams: tuple[SamBinding, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What of the configuration is not drawn, or may not be taken, and why: a line each."""
        unmapped = [
            f"label {label!r} of {control!r}: {reason}"
            for control, reasons in self.unmapped.items()
            for label, reason in reasons.items()
        ]
        return [*unmapped, *self.warnings]


def plan(registry: Registry, config: str, url: Sequence[str], extra_params: Sequence[str]) -> Plan:
    """Which models draw for which controls of the labeling config ``config``.

    Raises:
        LabelConfigError: the configuration cannot be used, or no label maps to any class.
        UnknownModel: a model that was asked for is not there.
        ModelUnavailable: one cannot be loaded, be it of SAMs where there is nothing else.
    """
    try:
        drawn = controls.drawn(config)
    except controls.NothingToDraw as error:
        for name in selection.choose(url, extra_params, registry.default):
            if not registry.is_sam(name):
                registry.get(name)
        return Plan((), f"waiting for something to draw: {error}", {}, str(error))
    bindings, classes, without = [], set(), []
    warnings: list[str] = []
    unmapped: dict[str, Mapping[str, str]] = {}
    named = [(control, _names(registry, control, url, extra_params)) for control in drawn]
    sams = _sams(registry, named)
    by_sam = {binding.control.from_name for binding in sams}
    asked = [(control, _models(registry, control, names)) for control, names in named]
    fitting = [[one for one in of if controls.takes(control, one.task)] for control, of in asked]
    fit = [control for control, models in zip(drawn, fitting, strict=True) if models]
    kept = controls.untaken(fit)
    for (control, connected), models in zip(asked, fitting, strict=True):
        if models and control not in kept:
            continue  # another control's boxes are drawn in it
        if not models and control.flag("smart") and not control.model_path:
            continue  # a tool for people, whose answers other controls draw
        if not connected:
            continue  # SAMs alone: for what people point at
        if not models:
            tasks = [(model.entry.name, model.task) for model in connected]
            why = controls.no_task(control, tasks)
            if control.model_path:
                raise LabelConfigError(why)
            without.append(why)
            if control.from_name not in by_sam:
                warnings.append(f"{why}; the control is left to people")
            continue
        known = [name for model in models for name in model.names.values()]
        mapped = controls.match(control, known)
        classes.update(known)
        boxes, missing = controls.boxes(control, config, mapped.labels)
        if mapped.unmapped:
            unmapped[control.from_name] = mapped.unmapped
        warnings += [f"{control.tag} {control.from_name!r}: {why}" for why in missing.values()]
        warnings += _refused(control)
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
    if not bindings and sams and not without:
        return _pointed(sams)
    if not bindings:
        raise LabelConfigError("; ".join(without) or _nothing_by_sam(drawn))
    if not any(binding.labels or binding.control.own for binding in bindings):
        wanted = sorted({label.value for control in drawn for label in control.labels})
        raise LabelConfigError(
            f"no label maps to a class: the labels are {some(wanted)}; "
            f"the classes are {some(sorted(classes))}. "
            "Rename one or the other, or give the label predicted_values"
        )
    version = join_versions(binding.model.version for binding in bindings)
    warned = tuple(dict.fromkeys(warnings))
    return Plan(tuple(bindings), version, unmapped, sams=sams, warnings=warned)


def _refused(control: Control) -> Iterator[str]:
    """What Label Studio refuses of ``control`` where it checks predictions strictly."""
    name = f"{control.tag} {control.from_name!r}"
    if control.repeats:
        yield f"{name}: it is in a Repeater, whose numbered names {STRICT}"
    if control.own:
        yield f"{name}: it has labels that each task brings, which {STRICT}"
    if control.tag.lower() == "choices" and any(label.path for label in control.labels):
        yield f"{name}: choices inside choices are stored as paths, which {STRICT}"


def _names(
    registry: Registry, control: Control, url: Sequence[str], extra_params: Sequence[str]
) -> list[str]:
    """The models that are asked for ``control``. The SAMs of the connection draw in every control,
    beside a model of its own too."""
    connected = selection.choose(url, extra_params, registry.default)
    if not control.model_path:
        return list(connected)
    return [control.model_path, *filter(registry.is_sam, connected)]


def _models(registry: Registry, control: Control, names: Sequence[str]) -> list[Model]:
    own = [name for name in names if not registry.is_sam(name)]
    if control.model_path:
        return [registry.by_path(name) for name in own]
    return [registry.get(name) for name in own]


def _sams(
    registry: Registry, named: Sequence[tuple[Control, Sequence[str]]]
) -> tuple[SamBinding, ...]:
    """What SAMs draw: outlines, in the controls that take them. One whose weights cannot be used
    leaves the other models alone; where there are no others, that is an error."""
    alone = all(registry.is_sam(name) for _, names in named for name in names)
    found = []
    for control, names in named:
        kind = controls.of(control)
        if kind is None or kind.join or control.of_video or not controls.takes(control, "segment"):
            continue
        for name in dict.fromkeys(filter(registry.is_sam, names)):
            try:
                version = registry.version(name)
            except ModelUnavailable:
                if alone:
                    raise
                continue
            found.append(SamBinding(control, version, partial(registry.sam, name)))
    return tuple(found)


def _pointed(sams: tuple[SamBinding, ...]) -> Plan:
    """The plan of a project that no model is connected to but SAMs."""
    version = join_versions(binding.version for binding in sams)
    why = (
        f"{version} answers what is drawn with a smart tool, and nothing else; for predictions "
        "connect a model of your own beside it"
    )
    return Plan((), version, {}, why, sams)


def _nothing_by_sam(drawn: Sequence[Control]) -> str:
    tags = some(sorted({control.tag for control in drawn}))
    return (
        f"controls: found {tags}, expected one that a SAM draws in: PolygonLabels, BrushLabels, "
        "BitmaskLabels, EllipseLabels or RectangleLabels; or connect a model that fits"
    )


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
