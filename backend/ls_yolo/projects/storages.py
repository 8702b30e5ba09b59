"""Storages of a project: folders and buckets that images come from and annotations go to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ls_yolo.labelstudio import bulk
from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects.backend import ApplyError, Say
from ls_yolo.projects.config import IMAGES
from ls_yolo.projects.plan import Change, Fields, Item, Kind, label, place
from ls_yolo.projects.rest import Rows
from ls_yolo.projects.secrets import Secrets, reference

SOURCE, TARGET = "source_storages", "target_storages"
TYPES = {"local": "localfiles", "s3": "s3", "gcs": "gcs", "azure": "azure"}
"""The types of a file, as Label Studio calls them."""

NAMES = {
    "path": "path", "bucket": "bucket", "container": "container", "prefix": "prefix",
    "title": "title", "regex": "regex_filter", "recursive": "recursive_scan", "presign": "presign",
    "presign_ttl": "presign_ttl", "region": "region_name", "endpoint": "s3_endpoint",
    "google_project_id": "google_project_id", "can_delete_objects": "can_delete_objects",
    "access_key_id": "aws_access_key_id", "secret_access_key": "aws_secret_access_key",
    "session_token": "aws_session_token", "account_name": "account_name",
    "account_key": "account_key",
    "google_application_credentials": "google_application_credentials",
}  # fmt: skip
"""Fields of a file, as Label Studio calls them; ``method`` is its ``use_blob_urls``."""

HIDDEN = {
    "local": (),
    "s3": ("access_key_id", "secret_access_key", "session_token"),
    "gcs": ("google_application_credentials",),
    "azure": ("account_name", "account_key"),
}
"""What Label Studio takes and never shows, by type."""

OPTIONAL = frozenset({"session_token"})
FIELDS = {
    "local": ("path",),
    "s3": ("bucket", "prefix", "region", "endpoint"),
    "gcs": ("bucket", "prefix", "google_project_id"),
    "azure": ("container", "prefix"),
}
"""The fields that a storage of each type has, beside those of all."""

POLL_SECONDS = 5.0
"""How often a sync that is under way is looked at."""
QUEUED_SECONDS = 60.0
"""How long a sync may wait to begin before it is taken for one that was cut off."""
BUSY = ("queued", "in_progress")


def _source_defaults(fields: Fields) -> Fields:
    signed = {} if fields["type"] == "local" else {"presign": True, "presign_ttl": 1}
    usual = {"title": label(fields), "regex": IMAGES, "recursive": False, "method": "files"}
    return usual | dict.fromkeys(FIELDS[fields["type"]], "") | signed


def _target_defaults(fields: Fields) -> Fields:
    usual = {"title": label(fields), "can_delete_objects": False}
    return usual | dict.fromkeys(FIELDS[fields["type"]], "")


_EVERY_HIDDEN = frozenset(name for names in HIDDEN.values() for name in names)
KINDS = {
    SOURCE: Kind(place, _source_defaults, _EVERY_HIDDEN),
    TARGET: Kind(place, _target_defaults, _EVERY_HIDDEN),
}


def rows(studio: Studio, kind: str, type_: str) -> Rows:
    """The API's storages of a kind and a type of a file."""
    side = "export/" if kind == TARGET else ""
    return Rows(studio, f"api/storages/{side}{TYPES[type_]}", slash=False)


def found(studio: Studio, project: int, root: Path) -> dict[str, list[Item]]:
    """The storages of a project by kind. ``root`` is the datasets folder."""
    return {
        kind: [
            item(row, kind, type_, root)
            for type_ in TYPES
            for row in rows(studio, kind, type_).all(project)
        ]
        for kind in KINDS
    }


def item(row: Mapping[str, Any], kind: str, type_: str, root: Path) -> Item:
    """A storage of Label Studio. A path outside ``root`` stays absolute."""
    names = ("title", *FIELDS[type_])
    if kind == SOURCE:
        names += ("regex", "recursive") + (() if type_ == "local" else ("presign", "presign_ttl"))
    else:
        names += ("can_delete_objects",)
    usual = KINDS[kind].defaults({"type": type_, **dict.fromkeys(FIELDS[type_], "")})
    empty = {name: "" if isinstance(value, str) else value for name, value in usual.items()}
    fields = {"type": type_}
    fields |= {
        name: empty[name] if row.get(NAMES[name]) is None else row[NAMES[name]] for name in names
    }
    if "prefix" in fields:
        fields["prefix"] = str(fields["prefix"]).strip("/")
    if kind == SOURCE:
        fields["method"] = "files" if row.get("use_blob_urls") else "tasks"
    if type_ == "local":
        path = Path(fields["path"])
        fields["path"] = str(path.relative_to(root) if path.is_relative_to(root) else path)
    return Item(row["id"], fields)


def exported(one: Item, kind: str) -> dict[str, Any]:
    """A storage as a file has it: without what a new one has anyway, secrets as references."""
    usual = KINDS[kind].defaults(one.fields)
    fields = {
        name: value
        for name, value in one.fields.items()
        if name in ("type", *FIELDS[one.fields["type"]][:1]) or value != usual.get(name)
    }
    for name in HIDDEN[fields["type"]]:
        if name not in OPTIONAL:
            where = [part for part in place(fields)[1:] if part]
            fields[name] = reference(fields["type"], *where, name)
    return fields


def execute(studio: Studio, project: int, change: Change, root: Path, secrets: Secrets) -> None:
    """Does a change of storages."""
    fields: dict[str, Any] = {**(change.item.fields if change.item else {}), **change.fields}
    api = rows(studio, change.kind, fields["type"])
    if change.action == "delete":
        assert change.item is not None
        api.delete(change.item.id)
        return
    body = _body(fields, project, root, secrets)
    if change.item:
        api.update(change.item.id, body)
    else:
        api.create(body)


def refresh(
    studio: Studio, project: int, kind: str, one: Item, wanted: Fields, root: Path, secrets: Secrets
) -> None:
    """Sends the secrets of a storage again: they cannot be read back to see whether they differ."""
    texts = {name: text for name, text in wanted.items() if name in _EVERY_HIDDEN}
    if any(secrets.get(text) for text in texts.values()):
        body = _body({**one.fields, **texts}, project, root, secrets)
        rows(studio, kind, one.fields["type"]).update(one.id, body)


def _body(fields: Fields, project: int, root: Path, secrets: Secrets) -> dict[str, Any]:
    body: dict[str, Any] = {"project": project}
    for name, value in fields.items():
        if name in _EVERY_HIDDEN:
            # A variable that is not there leaves what Label Studio has.
            if (secret := secrets.get(value)) is not None:
                body[NAMES[name]] = secret
        elif name in NAMES:
            body[NAMES[name]] = value
    if "method" in fields:
        body["use_blob_urls"] = fields["method"] == "files"
    if fields["type"] == "local":
        body["path"] = str(root / fields["path"])
    for name in ("region_name", "s3_endpoint", "google_project_id", "prefix"):
        if body.get(name) == "":
            body[name] = None
    return body


def sync(studio: Studio, project: int, one: Item, say: Say) -> int:
    """Has Label Studio make tasks of what is new in a source storage; returns how many.

    With the kit's image in bounded requests, else by Label Studio's own sync, which takes one
    request however long.

    Raises:
        ApplyError: Label Studio cannot read the storage.
        StudioError, ApiError, httpx.HTTPError: it is not reached or refuses.
    """
    type_, name = one.fields["type"], label(one.fields)
    _wait(studio, project, one, say)
    if one.fields["method"] == "files":
        try:
            return _in_batches(studio, one, name, say)
        except bulk.NoBulkCalls:
            pass
    done = rows(studio, SOURCE, type_).sync(one.id)
    if done["status"] not in ("completed", "completed_with_errors"):
        raise ApplyError(
            f"storage {name}: sync ended as {done['status']!r}: {done.get('traceback') or ''}"
        )
    return int(done["last_sync_count"] or 0)


def _in_batches(studio: Studio, one: Item, name: str, say: Say) -> int:
    calls, made = bulk.store_of(studio), 0
    while True:
        batch = calls.make_tasks(int(one.id), TYPES[one.fields["type"]])
        made += batch.made
        if not batch.left:
            return made
        say(f"storage {name}: {made} new images, {batch.left} left")


def _wait(studio: Studio, project: int, one: Item, say: Say) -> None:
    """Returns when no sync of the storage is under way.

    Reading the list has Label Studio see that a sync of before its own restart has ended, which
    would be answered by 200 and nothing done until then.
    """
    end = time.monotonic() + QUEUED_SECONDS
    told = False
    for status in _states(studio, project, one):
        if status not in BUSY or (status == "queued" and time.monotonic() > end):
            return
        if not told:
            say(
                f"storage {label(one.fields)}: a sync is under way, or was cut off, which Label "
                "Studio sees 25 s later; waiting for its end"
            )
            told = True
        time.sleep(POLL_SECONDS)


def _states(studio: Studio, project: int, one: Item) -> Iterator[str]:
    api = rows(studio, SOURCE, one.fields["type"])
    while True:
        row = next((row for row in api.all(project) if row["id"] == one.id), {})
        yield str(row.get("status") or "")
