"""Helpers that model.py files import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

DATA_UNDEFINED_NAME = "$undefined$"
"""The key of a task's data where the labelling configuration names none."""


def get_image_size(filepath: str | Path) -> tuple[int, int]:
    """Width and height, in pixels, of an image as a browser shows it: EXIF rotation applied."""
    with Image.open(filepath) as picture:
        return ImageOps.exif_transpose(picture).size


def get_single_tag_keys(
    parsed_label_config: dict[str, Any], control_type: str, object_type: str
) -> tuple[str, str, str, list[str]]:
    """Name, name of the object, key in a task's data, and labels of the only control.

    Raises:
        AssertionError: there is not exactly one control, or it or its object is of another type.
    """
    found = ", ".join(f"{info['type']} {name!r}" for name, info in parsed_label_config.items())
    assert len(parsed_label_config) == 1, f"controls: found {found or 'none'}, expected one"
    (name, info), *_ = parsed_label_config.items()
    assert info["type"] == control_type, f"found {found}, expected a {control_type}"
    kinds = [item["type"] for item in info["inputs"]]
    assert kinds == [object_type], f"objects of {name!r}: found {kinds}, expected one {object_type}"
    return name, info["to_name"][0], info["inputs"][0]["value"], info["labels"]


def get_first_tag_keys(
    parsed_label_config: dict[str, Any], control_type: str, object_type: str
) -> tuple[str | None, dict[str, Any] | None]:
    """Name and description of the first control of a type with an object of a type, or Nones."""
    for name, info in parsed_label_config.items():
        kinds = [item["type"] for item in info["inputs"]]
        if info["type"] == control_type and object_type in kinds:
            return name, info
    return None, None


def is_skipped(completion: dict[str, Any]) -> bool:
    """Whether a task has one annotation, and that says that a person skipped the task."""
    annotations = completion["annotations"]
    return len(annotations) == 1 and any(
        annotations[0].get(key) for key in ("skipped", "was_cancelled")
    )


def get_choice(completion: dict[str, Any]) -> str:
    """The first choice of a task's first annotation."""
    return str(completion["annotations"][0]["result"][0]["value"]["choices"][0])
