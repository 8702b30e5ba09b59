"""How labels map to classes, told from what is known of models: none is loaded for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ls_yolo import controls
from ls_yolo.labelstudio import selection
from ls_yolo.models.sam import SAM
from ls_yolo.text import nearest


class MappingError(ValueError):
    """It cannot be told how labels map; the message says why, and what to do."""


@dataclass(frozen=True)
class Mapped:
    """How a control's labels map. ``mapped``: label to classes; ``unmapped``: label to the reason;
    ``unlabelled``: classes that no label stands for, of which nothing is drawn."""

    control: str
    tag: str
    models: tuple[str, ...]
    mapped: Mapping[str, Sequence[str]]
    unmapped: Mapping[str, str]
    unlabelled: Sequence[str]


def mapping(
    text: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], default: str = ""
) -> list[Mapped]:
    """How the labels of a labeling config map to the classes of the models ``names``, which
    need not be loaded. Empty: those are SAMs alone.

    rows: what is known of all models, as in `ls_yolo.serving.registry.Registry.status`.
    default: the model where ``names`` has none; empty: the first that is no SAM.

    Raises:
        LabelConfigError: the configuration cannot be read, or has no control that is drawn for.
        MappingError: there is no such model, or its classes are not known.
    """
    # One that is for several images maps once.
    drawn = list({control.from_name: control for control in controls.drawn(text)}.values())
    first = next((row for row in rows if row.get("task") != SAM), rows[0] if rows else {})
    default = default or first.get("name", "")
    found, drawing, pointed = [], [], set()
    for control in drawn:
        path = (control.model_path,) if control.model_path else ()
        chosen = path or selection.choose(names, (), default)
        everything = [_row(model, rows) for model in chosen]
        asked = [row for row in everything if row.get("task") != SAM]
        if not asked:
            continue
        fit = [row for row in asked if _fits(control, row)]
        name, tag = control.from_name, control.tag
        if not fit:
            if len(asked) < len(everything) and controls.takes(control, "segment"):
                pointed.add(name)
            why = controls.no_task(control, [(row["name"], row["task"]) for row in asked])
            unmapped = {label.value: why for label in control.labels}
            names_asked = tuple(row["name"] for row in asked)
            found.append(Mapped(name, tag, names_asked, {}, unmapped, []))
            continue
        drawing.append(control)
        classes = dict.fromkeys(one for row in fit for one in row["classes"])
        match = controls.match(control, classes)
        _, missing = controls.boxes(control, text, match.labels)
        fitting = tuple(row["name"] for row in fit)
        rest = [one for one in classes if one not in match.labels]
        found.append(Mapped(name, tag, fitting, match.classes, {**match.unmapped, **missing}, rest))
    # What takes another control's boxes has no mapping of its own.
    kept = {control.from_name for control in controls.untaken(drawing)}
    taken = {control.from_name for control in drawing} - kept
    found = [item for item in found if item.control not in taken]
    # What a SAM draws in where people point lacks no model, unless no control has one.
    return [item for item in found if item.control not in pointed] or found


def _fits(control: Any, row: Mapping[str, Any]) -> bool:
    """Whether ``control`` can draw what a model says; of one that has not said its task it is not
    known."""
    return not row.get("task") or controls.takes(control, row["task"])


def _row(name: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for row in rows:
        if row["name"] == name:
            if row.get("classes") or row.get("task") == SAM:
                return row
            raise MappingError(
                f"model {name!r} has said no classes yet: it is {row.get('state') or 'unknown'}"
                + (f" ({row['error']})" if row.get("error") else "")
                + "; open a task of the project once, then ask again"
            )
    known_names = [str(row["name"]) for row in rows]
    raise MappingError(
        f"no model is called {name!r}{nearest(name, known_names)}; "
        f"there is: {', '.join(known_names) or 'none'}"
    )
