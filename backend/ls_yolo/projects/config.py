"""projects/*.yaml: what a project should be."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ls_yolo import config
from ls_yolo.images.formats import PATTERN
from ls_yolo.labelstudio import label_config

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
    """A project as a file describes it. ``models`` empty: the backend's default model."""

    source: str
    title: str
    description: str
    label_config: str
    models: tuple[str, ...]
    storage: Storage | None
    predict: bool


def read(path: Path) -> list[Project]:
    """The projects of a YAML file, or of every ``*.yaml`` and ``*.yml`` file of a folder, by name.

    Raises:
        config.ConfigError: a file cannot be used, or two have the same title; one line a fault.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
    found: list[Project] = []
    faults = []
    for file in files:
        try:
            project = _read(file)
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


def _read(file: Path) -> Project:
    document = config.load(file, "projects")
    data = document.data
    try:
        label_config.parse(data["label_config"])
    except label_config.LabelConfigError as error:
        raise config.ConfigError(f"{document.where('label_config')}{error}") from None
    storage = data.get("storage")
    if storage and "regex" in storage:
        try:
            re.compile(storage["regex"])
        except re.error as error:
            raise config.ConfigError(
                f"{document.where('storage', 'regex')}found {storage['regex']!r}, "
                f"expected a regular expression: {error}"
            ) from None
    return Project(
        source=str(file),
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
        predict=data.get("predict", True),
    )
