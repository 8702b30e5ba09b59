"""Helpers that model.py files import."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image, ImageOps

DATA_UNDEFINED_NAME = "$undefined$"
"""The key of a task's data where the labeling config names none."""


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


def is_valid_url(path: str) -> bool:
    """Whether a text has the form of an address: a scheme and a host."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def is_preload_needed(url: str) -> bool:
    """Whether a value of a task's data stands for a file: an upload, a local file, one in a cloud
    storage or anywhere else at an address.

    A path of this machine does not: a task's text may be any, and must not name our files.
    """
    upload = url.startswith(("upload/", "/upload/", "/data/upload/"))
    local = url.startswith("/data/") and "?d=" in url
    return upload or local or is_valid_url(url)


def match_labels(input: str, labels: Sequence[str]) -> list[str]:
    """For each line, the label that is most like it."""
    return [
        max(labels, key=lambda label: SequenceMatcher(None, line, label).ratio())
        for line in input.splitlines()
    ]


class InMemoryLRUDictCache:
    """Keeps the ``capacity`` values that were used last."""

    def __init__(self, capacity: int = 1) -> None:
        self.capacity = capacity
        self.cache: OrderedDict[Hashable, Any] = OrderedDict()

    def __contains__(self, item: Hashable) -> bool:
        return item in self.cache

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        if key in self.cache:
            self.cache.move_to_end(key)
        return self.cache.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Keeps a value, in place of the one that was not used for longest."""
        self.cache[key] = value
        self.cache.move_to_end(key)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)

    def __str__(self) -> str:
        return str(self.cache)
