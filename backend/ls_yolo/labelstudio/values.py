"""Label Studio's language for values: ``$image``, ``$photo.url``, ``$images[0]``, ``a/$image``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

VARIABLE = re.compile(r"\$[\w\[\].{}]+", re.ASCII)
"""What Label Studio's page takes for a reference to a task's data; other names it shows as text."""


def resolve(value: str, data: Any) -> Any:
    """What ``value``, an attribute of a labeling config, stands for in a task's ``data``.

    A value that is one reference and nothing else is what is there, of any type; references in a
    longer text are replaced by text, as the page does it. A text without a reference is itself.
    None where the data lacks what is referred to.
    """
    if VARIABLE.fullmatch(value):
        return _get(data, value[1:])
    found = {name: _get(data, name[1:]) for name in VARIABLE.findall(value)}
    if any(item is None for item in found.values()):
        return None
    return VARIABLE.sub(lambda match: _text(found[match[0]]), value)


def where(value: str) -> str:
    """``value`` as a message names it: ``data.photo.url`` where it is one reference."""
    return f"data.{value[1:]}" if VARIABLE.fullmatch(value) else value


def _get(data: Any, path: str) -> Any:
    """The item at ``path``: a key of that very name first, as Label Studio stores `photo.url`."""
    if isinstance(data, Mapping) and path in data:
        return data[path]
    for key in re.findall(r"[^.\[\]]+", path):
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and re.fullmatch("0|[1-9][0-9]{0,8}", key):
            data = data[int(key)] if int(key) < len(data) else None
        else:
            return None
    return data


def _text(item: Any) -> str:
    """``item`` as JavaScript writes it into a text."""
    if isinstance(item, list):
        return ",".join("" if part is None else _text(part) for part in item)
    if isinstance(item, Mapping):
        return "[object Object]"
    return item if isinstance(item, str) else json.dumps(item)
