"""Controls: what Label Studio draws, a file a control. Pure geometry, no I/O.

A file here with a ``CONTROL`` (see `base.ControlType`) is one more control.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module

from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Control, LabelConfigError, Mapped
from ls_yolo.results import RESULTS
from ls_yolo.text import some

__all__ = [
    "CONTROLS",
    "NothingToDraw",
    "Region",
    "boxes",
    "drawn",
    "find",
    "match",
    "no_task",
    "of",
    "takes",
    "untaken",
]


class NothingToDraw(LabelConfigError):
    """A labeling config has no control that predictions are drawn for, or none with a label."""


NEEDS = "; Number and Rating with model_count, shapes without labels beside a Labels tag"
BOXES = "RectangleLabels"
"""The control that takes the boxes of what another one draws."""


def find(path: Iterable[str], package: str) -> Mapping[str, ControlType]:
    """The controls of the modules in the folders ``path`` of ``package``, by lower-case tag."""
    modules = [import_module(f"{package}.{item.name}") for item in pkgutil.iter_modules(path)]
    found = [module.CONTROL for module in modules if hasattr(module, "CONTROL")]
    found += [_unlabelled(kind) for kind in found if kind.unlabelled]
    return {kind.tag.lower(): kind for kind in found}


def _unlabelled(kind: ControlType) -> ControlType:
    def draws(control: Control) -> tuple[type, ...]:
        return kind.draws(control) if control.labels_from else ()

    return replace(kind, tag=kind.unlabelled, unlabelled="", draws=draws)


CONTROLS = find(__path__, __name__)
"""The controls that predictions are drawn for, by tag in small letters."""


def of(control: Control) -> ControlType | None:
    """How ``control`` is drawn; None where it is not."""
    kind = CONTROLS.get(control.tag.lower())
    return kind if kind and kind.object_tag.lower() == control.object_tag.lower() else None


def takes(control: Control, task: str) -> bool:
    """Whether a model for ``task``, as ultralytics calls it, can be drawn by ``control``."""
    kind = of(control)
    return kind is not None and RESULTS[task] in kind.draws(control)


def no_task(control: Control, models: Iterable[tuple[str, str]]) -> str:
    """Why none of ``models``, names and tasks, can be drawn by ``control``."""
    found = some([f"{name} ({task})" for name, task in models])
    expected = " or ".join(task for task in RESULTS if takes(control, task))
    name = f"{control.tag} {control.from_name!r}"
    return f"{name}: found the models {found}, expected one for {expected}"


def match(control: Control, names: Iterable[str]) -> Mapped:
    """Maps class ``names`` to the labels of ``control``, as its type does it."""
    kind = of(control)
    return (kind.match if kind else label_config.match)(control, names)


def boxes(
    control: Control, config: str, classes: Iterable[str]
) -> tuple[Mapping[str, str] | None, Mapping[str, str]]:
    """The boxes that ``control`` of the labeling config ``config`` draws beside its own regions.

    Returns class name to label in the control that takes them, None where none is there or none is
    asked for; and that control's name to why boxes of ``classes`` are left out, if they are.
    """
    kind = of(control)
    name = kind.boxes(control) if kind else None
    if name is None:
        return None, {}
    for one in label_config.parse(config):
        if (one.from_name, one.to_name, one.tag.lower()) == (name, control.to_name, BOXES.lower()):
            found = label_config.match(one, classes)
            rest = [repr(known) for known in classes if known not in found.labels]
            why = f"boxes of {some(rest)} are left out: no label of {name!r} stands for them"
            return found.labels, {name: why} if rest else {}
    return None, {
        name: f"boxes are left out: found no {BOXES} called {name!r} on {control.to_name!r}, "
        'expected one, or model_add_bboxes="false"'
    }


def untaken(controls: Sequence[Control]) -> list[Control]:
    """``controls`` without those that take the boxes of another one among them: they have them from
    there, not a second time of their own."""
    taken = {(_type(control).boxes(control), control.to_name) for control in controls}
    return [one for one in controls if (one.from_name, one.to_name) not in taken]


def drawn(config: str) -> list[Control]:
    """The controls of the labeling config ``config`` that predictions are drawn for.

    Raises:
        NothingToDraw: there is none, or none has a label.
        LabelConfigError: the configuration cannot be used.
    """
    controls = label_config.parse(config)
    asked = [control for control in controls if of(control) and not control.skipped]
    found = [control for control in asked if _type(control).draws(control)]
    if not found:
        there = sorted({f"{control.tag} on {control.object_tag}" for control in controls})
        skipped = " without model_skip or perRegion" if any(map(of, controls)) else ""
        needs = NEEDS if asked else ""
        raise NothingToDraw(
            f"controls: found {some(there)}, expected {_expected()}{skipped}{needs}"
        )
    if not any(control.labels or control.own for control in found):
        names = some([repr(control.from_name) for control in found])
        raise NothingToDraw(f"labels of {names}: found none, expected at least one")
    for control in found:
        _type(control).check(control)
    return found


def _expected() -> str:
    tags: dict[str, list[str]] = {}
    for kind in CONTROLS.values():
        tags.setdefault(kind.object_tag, []).append(kind.tag)
    return " or ".join(f"one of {', '.join(sorted(tags[on]))} on {on}" for on in sorted(tags))


def _type(control: Control) -> ControlType:
    kind = of(control)
    assert kind is not None
    return kind
