"""What the chart makes, and values for it, as tests want them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]


def joined(*pairs: tuple[str, Any]) -> Object:
    """``joined(("a.b", 1), ("a.c", 2))`` is ``{"a": {"b": 1, "c": 2}}``."""
    whole: Object = {}
    for path, value in pairs:
        place = whole
        *folders, last = path.split(".")
        for name in folders:
            place = place.setdefault(name, {})
        place[last] = value
    return whole


def pod_spec(found: Object) -> Object | None:
    """The spec of the pods that an object is or makes; None if it makes none."""
    if found["kind"] == "Pod":
        return dict(found["spec"])
    return pod_template(found).get("spec")


def pod_template(found: Object) -> Object:
    """Metadata and spec of the pods that an object makes, those of Jobs by schedule among them;
    empty if it makes none."""
    spec = found.get("spec") or {}
    template: Object = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    return template


def containers(objects: Iterable[Object]) -> Iterator[Object]:
    """The containers of all pods of objects, those that run first among them."""
    for found in objects:
        if template := pod_spec(found):
            yield from [*template.get("initContainers", []), *template["containers"]]
