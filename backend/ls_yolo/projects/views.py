"""Views, the tabs of the Data Manager. Their fields are those of Label Studio's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects.plan import Change, Item, Kind
from ls_yolo.projects.rest import Rows

KIND = Kind(key=lambda fields: fields.get("title"), defaults=lambda fields: {})
NO_FILTERS = {"conjunction": "and", "items": []}


def rows(studio: Studio) -> Rows:
    """The API's views."""
    return Rows(studio, "api/dm/views")


def item(row: Mapping[str, Any]) -> Item:
    """A view of Label Studio."""
    fields = {key: value for key, value in (row.get("data") or {}).items() if value is not None}
    return Item(row["id"], {"title": "", "filters": NO_FILTERS, "ordering": [], **fields})


COUNTED = "Most objects"
"""The title of the view that is made with numbers of objects."""


def is_made(one: Item) -> bool:
    """Whether no person has made it: it is that of numbers of objects, or the one that Label
    Studio's page makes by itself where it finds none."""
    fields = one.fields
    if fields["title"] == COUNTED:
        return True
    plain = not fields["filters"].get("items") and not fields["ordering"]
    return plain and fields["title"] == "Default"


def exported(row: Mapping[str, Any]) -> dict[str, Any]:
    """A view as a file has it."""
    fields = dict(item(row).fields)
    if not fields["filters"].get("items"):
        del fields["filters"]
    if not fields["ordering"]:
        del fields["ordering"]
    return {key: value for key, value in fields.items() if value not in ({}, None)}


def execute(studio: Studio, project: int, change: Change) -> None:
    """Does a change of views."""
    api = rows(studio)
    if change.action == "delete":
        assert change.item is not None
        api.delete(change.item.id)
        return
    before = dict(change.item.fields) if change.item else {}
    data = {**before, **change.fields}
    body = {"project": project, "data": data}
    if change.item is None or (before["ordering"] and not data["ordering"]):
        # Label Studio keeps the ordering of a view that is changed to have none.
        api.create(body)
        if change.item:
            api.delete(change.item.id)
    else:
        api.update(change.item.id, body)
