"""A project as the YAML of its file, from what was found in Label Studio."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from ls_yolo.projects import fields, storages
from ls_yolo.projects.plan import State
from ls_yolo.projects.state import KINDS


class _Dumper(yaml.SafeDumper):
    """YAML as people write it: texts of several lines as blocks, lists under their key indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(data: Mapping[str, Any]) -> str:
    """``data`` as YAML, in its order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def of(title: str, state: State, named: Collection[str] = ()) -> dict[str, Any]:
    """A project with all that differs from a new one, and with the fields ``named``, in the order
    of a file."""
    found = state.fields
    data: dict[str, Any] = {"title": title}
    for key in ("description", "label_config", "models", *fields.DEFAULTS):
        usual = fields.DEFAULTS.get(key)
        if found.get(key) is not None and (key in named or found[key] != usual):
            data[key] = found[key]
    for kind, known in KINDS.items():
        rows = []
        for item in state.items.get(kind, ()):
            usual = known.defaults(item.fields) if kind not in storages.KINDS else {}
            rows.append(
                {
                    key: value
                    for key, value in item.fields.items()
                    if value not in ("", None, [], {}) and value != usual.get(key, ...)
                }
            )
        if rows:
            data[kind] = rows
    return data


def unified(before: str, after: str, title: str, source: str) -> str:
    """The difference as ``diff -u`` prints it; empty where there is none."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"{title} in Label Studio",
        f"{title} with {source}",
    )
    return "".join(lines)


def joined(lines: Sequence[str]) -> str:
    """``lines`` as comments of a YAML file."""
    return "".join(f"# {line}\n" for line in lines)
