"""What a project is in Label Studio, in the form of a project's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects import fields, storages, views, webhooks
from ls_yolo.projects.plan import Change, Item, Kind, State
from ls_yolo.projects.rest import Rows
from ls_yolo.projects.secrets import Secrets

KINDS: Mapping[str, Kind] = {
    **storages.KINDS,
    "webhooks": webhooks.KIND,
    "views": views.KIND,
    # What else answers, beside the connection that `models` stands for. A file has none of it.
    "connections": Kind(key=lambda row: row["url"], defaults=lambda row: {}),
}


def connection(rows: Sequence[Mapping[str, Any]], url: str) -> Mapping[str, Any] | None:
    """The connection to the kit's backend, of which ``url`` is what it should be: one of this very
    URL, else the oldest to the same host; None where there is none."""
    host = urlsplit(url).netloc
    ours = [row for row in rows if urlsplit(row["url"] or "").netloc == host]
    return min(ours, key=lambda row: (row["url"] != url, row["id"]), default=None)


def of_connection(webhook: str, url: str) -> bool:
    """Whether Label Studio has made a webhook with a connection to the kit's backend, also with one
    to other models by then: it keeps those."""
    parts = urlsplit(webhook)
    return parts.netloc == urlsplit(url).netloc and parts.path.endswith("/webhook")


def models(row: Mapping[str, Any] | None) -> list[str]:
    """The models that a connection names in its URL or its ``extra_params``."""
    if row is None:
        return []
    _, chosen, names = str(row.get("url") or "").partition(selection.PREFIX)
    if chosen:
        return list(selection.from_url(names.strip("/")))
    return list(selection.from_extra_params(row.get("extra_params")))


def read(
    studio: Studio, number: int, root: Path, url: str, wanted: State, secrets: Secrets
) -> State:
    """A project in Label Studio.

    Args:
        studio: where it is.
        number: its id.
        root: the datasets folder, that paths of storages are relative to.
        url: that of the connection to the kit's backend, as it should be.
        wanted: what a file says; its references stand for secrets that are the same.
        secrets: what references stand for.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is not reached.
    """
    api: Any = studio.client
    project = api.projects.get(number).model_dump()
    rows = Rows(studio, "api/ml", slash=False).all(number)
    ours = connection(rows, url)
    named = [item.fields for item in wanted.items.get("webhooks", ())]
    urls = {secrets.get(one["url"]) for one in named}
    made = {_webhook(row) for row in rows}
    tabs = {item.fields["title"] for item in wanted.items.get("views", ())}
    items: dict[str, list[Item]] = {
        **storages.found(studio, number, root),
        "webhooks": [
            webhooks.item(row, named, secrets)
            for row in webhooks.rows(studio).all(number)
            if row["url"] in urls or not (row["url"] in made or of_connection(row["url"], url))
        ],
        "views": [
            one
            for row in views.rows(studio).all(number)
            if (one := views.item(row)).fields["title"] in tabs or not views.is_made(one)
        ],
        "connections": [
            Item(row["id"], {"title": row["title"], "url": webhooks.without_secrets(row["url"])})
            for row in rows
            if row is not ours
        ],
    }
    own = {**fields.found(project), "models": models(ours) if ours else None}
    return State(own, items)


def execute(studio: Studio, number: int, change: Change, root: Path, secrets: Secrets) -> None:
    """Does a change of one of the items of a project."""
    if change.kind in storages.KINDS:
        storages.execute(studio, number, change, root, secrets)
    elif change.kind == "webhooks":
        webhooks.execute(studio, number, change, secrets)
    elif change.kind == "views":
        views.execute(studio, number, change)
    elif change.kind == "connections" and change.item is not None:
        _disconnect(studio, number, change.item.id)


def _disconnect(studio: Studio, number: int, connection: int) -> None:
    """Deletes a connection, and its webhook, which Label Studio would leave there."""
    api = Rows(studio, "api/ml", slash=False)
    rows = {row["id"]: _webhook(row) for row in api.all(number)}
    api.delete(connection)
    gone = rows.pop(connection, "")
    for row in webhooks.rows(studio).all(number):
        if row["url"] == gone and gone not in rows.values():
            webhooks.rows(studio).delete(row["id"])


def _webhook(row: Mapping[str, Any]) -> str:
    """The address of the webhook that Label Studio makes with a connection."""
    return str(row["url"]).rstrip("/") + "/webhook"


def hidden(items: Mapping[str, Sequence[Item]]) -> list[str]:
    """The texts of items that may refer to the environment."""
    texts: list[str] = []
    for kind, rows in items.items():
        for row in rows:
            texts += [str(row.fields[name]) for name in KINDS[kind].hidden if name in row.fields]
            if kind == "webhooks":
                texts += [row.fields.get("url", ""), *row.fields.get("headers", {}).values()]
    return texts
