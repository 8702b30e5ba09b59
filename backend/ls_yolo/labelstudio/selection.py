"""Which model answers. Pure rules; what Label Studio remembers is handed in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ls_yolo.errors import RequestError

PREFIX = "/m/"
"""What names of models come after in the path of a URL."""


class SelectionError(RequestError):
    """What names the models cannot be read; the message says what was found and expected."""

    status = 400


def from_url(text: str) -> tuple[str, ...]:
    """The names in ``/m/<name>[+<name>]/``, each once, in order.

    Raises:
        SelectionError: a name is empty.
    """
    return _unique(text.split("+"), f"{PREFIX}{text}")


def to_path(names: Sequence[str]) -> str:
    """The path that names models: ``/m/<name>[+<name>]``; empty for none."""
    return PREFIX + "+".join(names) if names else ""


def from_extra_params(value: Any) -> tuple[str, ...]:
    """The names in ``extra_params``: ``{"0": "a", "1": "b"}``, a list, or a name; JSON text too.

    Raises:
        SelectionError: the value has another form.
    """
    if isinstance(value, str):
        value = value.strip()
        try:
            value = json.loads(value) if value else None
        except (ValueError, RecursionError):
            value = [value]
        if isinstance(value, str):
            value = [value]
    if not value:
        return ()
    names = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SelectionError(
            f"extra_params: found {value!r:.200}, "
            'expected names of models such as {"0": "person", "1": "head"}'
        )
    return _unique(names, "extra_params")


def from_connections(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The names that a project's ML backend connections say, of which Label Studio asks the first
    only: those in its URL, else in its ``extra_params``.

    Raises:
        SelectionError: they have another form.
    """
    first = min(rows, key=lambda row: int(row["id"]), default={})
    _, chosen, names = str(first.get("url") or "").partition(PREFIX)
    return from_url(names.strip("/")) if chosen else from_extra_params(first.get("extra_params"))


def choose(url: Sequence[str], extra_params: Sequence[str], default: str) -> tuple[str, ...]:
    """The models of a control that names none: the URL's, else extra_params', else the default."""
    return tuple(url) or tuple(extra_params) or (default,)


def _unique(names: Sequence[str], source: str) -> tuple[str, ...]:
    stripped = [name.strip() for name in names]
    if not all(stripped):
        raise SelectionError(f"{source}: found an empty name, expected names of models")
    return tuple(dict.fromkeys(stripped))
