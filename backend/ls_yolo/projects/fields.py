"""A project's own fields: their names in a file and in Label Studio, and what a new project has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ls_yolo.projects.plan import Fields

SAMPLING = {
    "sequential": "Sequential sampling",
    "uniform": "Uniform sampling",
    "uncertainty": "Uncertainty sampling",
}

NAMES = {"instruction": "expert_instruction"}
"""Fields that Label Studio calls otherwise."""

DEFAULTS: Fields = MappingProxyType(
    {
        "description": "",
        "sampling": "sequential",
        "instruction": "",
        "show_instruction": False,
        "maximum_annotations": 1,
        "show_skip_button": True,
        "enable_empty_annotation": True,
        "show_annotation_history": False,
        "reveal_preannotations_interactively": False,
        "color": "#ffffff",
    }
)
"""What a new project has, in the order of a file."""


def wanted(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a file names, in the form in which `found` has them."""
    return {key: _plain(key, data[key]) for key in ("label_config", *DEFAULTS) if key in data}


def found(project: Mapping[str, Any]) -> dict[str, Any]:
    """All fields of a project as Label Studio's API gives it."""
    said = {value: key for key, value in SAMPLING.items()}
    fields = {key: project.get(NAMES.get(key, key)) for key in ("label_config", *DEFAULTS)}
    fields["sampling"] = said.get(str(fields["sampling"]), fields["sampling"])
    return {
        key: DEFAULTS.get(key, "") if value is None else _plain(key, value)
        for key, value in fields.items()
    }


def sent(fields: Fields) -> dict[str, Any]:
    """``fields`` as Label Studio's API takes them."""
    made = {NAMES.get(key, key): value for key, value in fields.items()}
    if "sampling" in made:
        made["sampling"] = SAMPLING[made["sampling"]]
    return made


def _plain(key: str, value: Any) -> Any:
    """``value`` without what makes no difference."""
    if not isinstance(value, str):
        return value
    return value.lower() if key == "color" else value.strip()
