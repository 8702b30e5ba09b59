"""Webhooks of a project."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects.plan import Change, Fields, Item, Kind
from ls_yolo.projects.rest import Rows
from ls_yolo.projects.secrets import HIDDEN, Secrets, reference

DEFAULTS: Fields = {"actions": [], "send_payload": True, "is_active": True, "headers": {}}
KIND = Kind(key=lambda fields: fields["url"], defaults=lambda fields: DEFAULTS)


def rows(studio: Studio) -> Rows:
    """The API's webhooks."""
    return Rows(studio, "api/webhooks")


def item(row: Mapping[str, Any], wanted: Sequence[Fields], secrets: Secrets) -> Item:
    """A webhook of Label Studio. What a file writes as a reference, and is the same there, is that
    reference; other values of headers are hidden."""
    url = str(row["url"])
    named = next((one for one in wanted if secrets.get(one["url"]) == url), {})
    headers = {
        key: _header(str(value), named.get("headers", {}).get(key), secrets)
        for key, value in (row.get("headers") or {}).items()
    }
    fields = {
        "url": named.get("url", shown(url)),
        "actions": [] if row.get("send_for_all_actions") else sorted(row.get("actions") or []),
        "send_payload": bool(row.get("send_payload")),
        "is_active": bool(row.get("is_active")),
        "headers": headers,
    }
    return Item(row["id"], fields)


def _header(value: str, wanted: str | None, secrets: Secrets) -> str:
    if wanted is None:
        return HIDDEN
    meant = secrets.get(wanted)
    # A variable that is not there leaves what Label Studio has.
    return wanted if meant is None or meant == value else HIDDEN


def exported(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A webhook as a file has it: values of headers, and an address that may hold a secret, are
    references."""
    fields = dict(item(row, (), Secrets({})).fields)
    if fields["url"] != row["url"]:
        fields["url"] = reference("webhook", str(number), "url")
    fields["headers"] = {key: reference("webhook", str(number), key) for key in fields["headers"]}
    return fields


def shown(url: str) -> str:
    """``url`` for people to read: where it goes. Services such as chats have a secret in the path,
    so that is hidden; a few digits of a hash tell such addresses apart."""
    parts = urlsplit(url)
    plain = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if url.rstrip("/") == plain:
        return url
    return f"{plain}/{HIDDEN}#{hashlib.sha256(url.encode()).hexdigest()[:8]}"


def without_secrets(url: str) -> str:
    """``url`` without user, password and query."""
    parts = urlsplit(url)
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return plain._replace(query=HIDDEN if parts.query else "", fragment="").geturl()


def execute(studio: Studio, project: int, change: Change, secrets: Secrets) -> None:
    """Does a change of webhooks."""
    api = rows(studio)
    if change.action == "delete":
        assert change.item is not None
        api.delete(change.item.id)
        return
    fields = {**(change.item.fields if change.item else {}), **change.fields}
    body: dict[str, Any] = {
        "send_payload": fields["send_payload"],
        "is_active": fields["is_active"],
        # Unless they are sent with each change, Label Studio forgets them.
        "actions": fields["actions"],
        "send_for_all_actions": not fields["actions"],
    }
    if "headers" in change.fields:
        body["headers"] = {key: secrets.get(text) for key, text in fields["headers"].items()}
    if change.item:
        api.update(change.item.id, body)
    else:
        api.create({"project": project, "url": secrets.get(fields["url"]), **body})
