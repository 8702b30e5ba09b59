"""A project of Label Studio as a project's file, with references in place of secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ls_yolo.labelstudio.client import Studio
from ls_yolo.projects import document, fields, state, storages, views, webhooks
from ls_yolo.projects.plan import State, label
from ls_yolo.projects.rest import Rows
from ls_yolo.projects.secrets import Secrets

SCHEMA = "../backend/ls_yolo/schemas/projects.schema.json"
"""Where an editor finds the schema, from a file in projects/."""


def export(studio: Studio, project: Mapping[str, Any], root: Path, url: str) -> str:
    """The YAML of a project's file. What a file cannot say is in comments.

    Args:
        studio: where the project is.
        project: it, as the API gives it.
        root: the datasets folder.
        url: that of the kit's backend.

    Raises:
        ApiError, httpx.HTTPError, StudioError: Label Studio refuses or is not reached.
    """
    number = int(project["id"])
    found = state.read(studio, number, root, url, State(), Secrets({}))
    rows = Rows(studio, "api/ml", slash=False).all(number)
    left: list[str] = []
    data: dict[str, Any] = {"title": str(project["title"]).strip()}
    data["description"] = found.fields["description"]
    data["label_config"] = found.fields["label_config"]
    names = state.models(state.connection(rows, url) or next(iter(rows), None))
    if names:
        data["models"] = names
    if not rows:
        data["connect"] = False
        left.append("no model is connected: connect says that none is to be")
    for key, usual in fields.DEFAULTS.items():
        if key not in data and found.fields[key] != usual:
            data[key] = found.fields[key]
    for kind in storages.KINDS:
        made = []
        for item in found.items[kind]:
            if item.fields["type"] == "local" and Path(item.fields["path"]).is_absolute():
                left.append(f"{kind}: {item.fields['path']} is outside DATASETS_DIR; left out")
            else:
                made.append(storages.exported(item, kind))
        if made:
            data[kind] = made
    hooks = [row for row in webhooks.rows(studio).all(number) if _kept(row, found)]
    if hooks:
        data["webhooks"] = [
            {
                key: value
                for key, value in webhooks.exported(row, place).items()
                if key == "url" or value != webhooks.DEFAULTS[key]
            }
            for place, row in enumerate(hooks, 1)
        ]
    tabs = [views.exported(row) for row in views.rows(studio).all(number)]
    if named := [view for view in tabs if view["title"]]:
        data["views"] = named
    left += ["a view without a title is left out"] * (len(tabs) - len(named))
    left += [
        f"connection {label(item.fields)} is left out: a file has the models of the kit's backend"
        for item in found.items["connections"]
    ]
    head = f"# yaml-language-server: $schema={SCHEMA}\n"
    return head + document.joined(left) + document.dump(data)


def _kept(row: Mapping[str, Any], found: State) -> bool:
    """Whether a webhook is a person's, and not that of a connection."""
    return any(item.id == row["id"] for item in found.items["webhooks"])
