"""Controls: what Label Studio draws, a file a control. Pure geometry, no I/O.

A file here with a ``CONTROL`` (see `base.ControlType`) is one more control.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from importlib import import_module

from ls_yolo.controls.base import ControlType, Region
from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Control, LabelConfigError
from ls_yolo.results import RESULTS
from ls_yolo.text import some

__all__ = ["CONTROLS", "NothingToDraw", "Region", "drawn", "find", "of", "takes"]


class NothingToDraw(LabelConfigError):
    """A labeling config has no control that predictions are drawn for, or none with a label."""


def find(path: Iterable[str], package: str) -> Mapping[str, ControlType]:
    """The controls of the modules in the folders ``path`` of ``package``, by lower-case tag."""
    modules = [import_module(f"{package}.{item.name}") for item in pkgutil.iter_modules(path)]
    found = [module.CONTROL for module in modules if hasattr(module, "CONTROL")]
    return {control.tag.lower(): control for control in found}


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


def drawn(config: str) -> list[Control]:
    """The controls of the labeling config ``config`` that predictions are drawn for.

    Raises:
        NothingToDraw: there is none, or none has a label.
        LabelConfigError: the configuration cannot be used.
    """
    controls = label_config.parse(config)
    found = [control for control in controls if of(control) and not control.skipped]
    if not found:
        there = sorted({f"{control.tag} on {control.object_tag}" for control in controls})
        expected = [f"{kind.tag} on {kind.object_tag}" for kind in CONTROLS.values()]
        skipped = " without model_skip" if any(map(of, controls)) else ""
        raise NothingToDraw(
            f"controls: found {some(there)}, expected one of {', '.join(expected)}{skipped}"
        )
    if not any(control.labels or control.own for control in found):
        names = some([repr(control.from_name) for control in found])
        raise NothingToDraw(f"labels of {names}: found none, expected at least one")
    return found
