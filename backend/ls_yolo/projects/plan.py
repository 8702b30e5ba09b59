"""What must change so that Label Studio has what a file names. Pure: nothing is asked or sent."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Fields = Mapping[str, Any]
"""Fields by the names that they have in a project's file."""

PLACE = {"local": ("path",), "s3": ("bucket", "prefix"), "gcs": ("bucket", "prefix"),
         "azure": ("container", "prefix")}  # fmt: skip
"""The fields by which a storage is found again, by its type."""


@dataclass(frozen=True)
class Item:
    """One of several things of a project in Label Studio: its id there, and all of its fields.

    What Label Studio never shows, such as keys of storages, is not among them.
    """

    id: Any
    fields: Fields


@dataclass(frozen=True)
class State:
    """A project: fields that are text, numbers or flags, and items by kind.

    As found in Label Studio, it has every field; as a file wants it, those that the file names.
    """

    fields: Fields = field(default_factory=dict)
    items: Mapping[str, Sequence[Item]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One thing to do. ``fields``: all of what is created, what differs of what is changed.

    ``kind`` is empty for the project's own fields, which are changed alone.
    """

    kind: str
    action: Literal["create", "change", "delete"]
    fields: Fields
    item: Item | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of items: how one is found again, what a new one has unless its file says otherwise,
    and fields that Label Studio takes and never shows."""

    key: Callable[[Fields], Hashable]
    defaults: Callable[[Fields], Fields]
    hidden: frozenset[str] = frozenset()


def place(fields: Fields) -> tuple[str, ...]:
    """By what a storage is found again."""
    names = PLACE[fields["type"]]
    return (fields["type"], *(str(fields.get(name) or "").strip("/") for name in names))


def plan(
    wanted: State, found: State, kinds: Mapping[str, Kind], prune: bool = False
) -> list[Change]:
    """What to do so that ``found`` has all that ``wanted`` names; what it does not name stays.

    ``prune``: items that ``wanted`` does not have are deleted; deletions come first.
    """
    gone: list[Change] = []
    done: list[Change] = []
    differs = {key: value for key, value in wanted.fields.items() if found.fields.get(key) != value}
    if differs:
        done.append(Change("", "change", differs))
    for name, kind in kinds.items():
        rest = list(found.items.get(name, ()))
        for item in wanted.items.get(name, ()):
            key = kind.key(item.fields)
            match = next((row for row in rest if kind.key(row.fields) == key), None)
            if match is None:
                done.append(Change(name, "create", {**kind.defaults(item.fields), **item.fields}))
                continue
            rest.remove(match)
            differs = {
                field: value
                for field, value in item.fields.items()
                if field not in kind.hidden and match.fields.get(field) != value
            }
            if differs:
                done.append(Change(name, "change", differs, match))
        if prune:
            gone += [Change(name, "delete", {}, item) for item in rest]
    return gone + done


def after(found: State, changes: Sequence[Change]) -> State:
    """What ``found`` is once ``changes`` are done."""
    fields = dict(found.fields)
    items = {name: list(rows) for name, rows in found.items.items()}
    for change in changes:
        rows = items.setdefault(change.kind, []) if change.kind else []
        if not change.kind:
            fields |= change.fields
        elif change.action == "create":
            rows.append(Item(None, change.fields))
        else:
            assert change.item is not None
            at = next(index for index, row in enumerate(rows) if row is change.item)
            if change.action == "delete":
                del rows[at]
            else:
                rows[at] = Item(change.item.id, {**change.item.fields, **change.fields})
    return State(fields, items)


def unnamed(wanted: State, found: State, kinds: Mapping[str, Kind], defaults: Fields) -> list[str]:
    """What ``found`` has beyond what a new project has and ``wanted`` does not name: it stays."""
    said = [
        f"{key} {found.fields[key]!r:.60}"
        for key, usual in defaults.items()
        if key not in wanted.fields and found.fields.get(key, usual) != usual
    ]
    for name, kind in kinds.items():
        named = {kind.key(item.fields): item.fields for item in wanted.items.get(name, ())}
        for item in found.items.get(name, ()):
            fields = named.get(kind.key(item.fields))
            if fields is None:
                said.append(f"{name} {label(item.fields)!r}")
                continue
            usual = kind.defaults(item.fields)
            said += [
                f"{key} of {name} {label(item.fields)!r}"
                for key in usual
                if key not in fields and item.fields.get(key, usual[key]) != usual[key]
            ]
    return said


def label(fields: Fields) -> str:
    """What people call an item."""
    if fields.get("type") in PLACE:
        kind, *where = place(fields)
        text = "/".join(part for part in where if part)
        return text if kind == "local" else f"{kind}://{text}"
    return str(fields.get("url") or fields.get("title") or "")
