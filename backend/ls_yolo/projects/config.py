"""projects/*.yaml: what a project should be."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ls_yolo import config
from ls_yolo.images.formats import PATTERN
from ls_yolo.labelstudio import label_config
from ls_yolo.projects import fields
from ls_yolo.projects.labels import FromModel
from ls_yolo.projects.plan import Item, State

IMAGES = rf"(?!\._){PATTERN}"
"""The file names that become tasks unless a project says otherwise: images, but for what a Mac
writes beside them."""


@dataclass(frozen=True)
class Storage:
    """A folder of images. ``path`` is relative to the datasets folder; ``regex`` says which file
    names become tasks."""

    path: str
    regex: str = IMAGES
    recursive: bool = False


@dataclass(frozen=True)
class Project:
    """A project as a file describes it. ``models`` empty: the backend's default model.

    ``label_config`` is empty until the models have said their classes where ``labels`` says to make
    it of them. ``named`` is what the file names and Label Studio has, `plan` compares; what it does
    not name stays there as it is. ``connect``: whether models are to answer.
    """

    source: str
    title: str
    description: str
    label_config: str
    models: tuple[str, ...]
    storage: Storage | None
    predict: bool
    labels: FromModel | None = None
    named: State = field(default_factory=State)
    task_files: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    connect: bool = True

    @property
    def has_images(self) -> bool:
        """Whether the file says where images come from."""
        return bool(self.named.items.get("source_storages") or self.task_files)

    def with_labels(self, text: str) -> Project:
        """The same with the labeling config ``text``."""
        own = {**self.named.fields, "label_config": text}
        return replace(self, label_config=text, named=State(own, self.named.items))


def read(*paths: Path) -> list[Project]:
    """The projects of YAML files, and of every ``*.yaml`` and ``*.yml`` file of folders, by name. A
    file that is named twice, such as one of a folder that is named too, counts once.

    A file may hold several, between lines of ``---``.

    Raises:
        config.ConfigError: a file cannot be used, or two have the same title; one line a fault.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        for file in inside:
            files.setdefault(file.resolve(), file)
    found: list[Project] = []
    faults = []
    for file in files.values():
        try:
            documents = config.load_all(file, "projects")
        except config.ConfigError as error:
            faults.append(str(error))
            continue
        for document in documents:
            try:
                project = _read(document)
            except config.ConfigError as error:
                faults.append(str(error))
                continue
            twin = next((other for other in found if other.title == project.title), None)
            if twin:
                faults.append(
                    f"{file}: title {project.title!r} is taken by {twin.source}; expected another"
                )
            found.append(project)
    if faults:
        raise config.ConfigError("\n".join(faults))
    return found


def _read(document: config.Document) -> Project:
    data = document.data
    made = None
    if isinstance(data["label_config"], dict):
        made, data["label_config"] = FromModel.read(data["label_config"]), ""
    else:
        try:
            label_config.parse(data["label_config"])
        except label_config.LabelConfigError as error:
            raise config.ConfigError(f"{document.where('label_config')}{error}") from None
    faults = [
        f"{document.where(*path)}found {text!r}, expected a regular expression: {why}"
        for *path, text in _expressions(data)
        if (why := _fault(text))
    ]
    if faults:
        raise config.ConfigError("\n".join(faults))
    storage = data.get("storage")
    return Project(
        source=document.source,
        # By title and path things are found again, so they are as Label Studio stores them.
        title=unicodedata.normalize("NFC", data["title"].strip()),
        description=data.get("description", "").strip(),
        label_config=data["label_config"].strip(),
        models=tuple(data.get("models", ())),
        storage=Storage(
            storage["path"].strip().strip("/"),
            storage.get("regex", IMAGES).strip(),
            storage.get("recursive", False),
        )
        if storage
        else None,
        predict=data.get("predict", True) and data.get("connect", True),
        labels=made,
        named=_named(data),
        task_files=tuple(path.strip() for path in data.get("task_files", ())),
        members=tuple(data.get("members", ())),
        connect=data.get("connect", True),
    )


def _expressions(data: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Where a file has regular expressions, and each."""
    if "regex" in data.get("storage", {}):
        yield "storage", "regex", data["storage"]["regex"]
    for number, one in enumerate(data.get("source_storages", ())):
        if "regex" in one:
            yield "source_storages", number, "regex", one["regex"]


def _fault(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        return str(error)
    return ""


def _named(data: Mapping[str, Any]) -> State:
    """What a file names, in the form in which it is found in Label Studio."""
    sources = [{"type": "local", **data["storage"]}] if "storage" in data else []
    items = {
        "source_storages": [*sources, *data.get("source_storages", ())],
        "target_storages": data.get("target_storages", ()),
        "webhooks": data.get("webhooks", ()),
        "views": data.get("views", ()),
    }
    own = fields.wanted(data)
    if data.get("connect", True):
        own["models"] = list(data.get("models", ()))
    return State(own, {kind: [Item(None, _clean(row)) for row in rows]
                       for kind, rows in items.items()})  # fmt: skip


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """An item without what makes no difference."""
    made = dict(row)
    for key in ("path", "prefix", "regex", "url"):
        if key in made:
            made[key] = made[key].strip()
    for key in ("path", "prefix"):
        if key in made:
            made[key] = made[key].strip("/")
    if "actions" in made:
        made["actions"] = sorted(made["actions"])
    return made
