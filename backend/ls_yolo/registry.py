"""models.yaml: the models by name, their weights, thresholds and versions."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls_yolo import config, engines
from ls_yolo.batching import Owner

log = logging.getLogger(__name__)

DEFAULT_IOU = 0.7
"""The overlap above which two boxes of a class are one: ultralytics' own default."""


class UnknownModel(ValueError):
    """A model that is not in models.yaml was asked for; the message names what is."""


@dataclass(frozen=True)
class Entry:
    """An entry of models.yaml. ``weights`` is absolute, ``conf`` and ``iou`` are 0 to 1, ``imgsz``
    is in pixels."""

    name: str
    weights: Path
    sha256: str
    names: Mapping[int, str]
    conf: float
    iou: float
    imgsz: int | None

    @property
    def version(self) -> str:
        """``<name>@<12 digits>``: a hash of the weights and of what changes answers."""
        settings = {
            "names": {str(i): n for i, n in sorted(self.names.items())},
            "conf": self.conf,
            "iou": self.iou,
            "imgsz": self.imgsz,
        }
        text = self.sha256 + json.dumps(settings, sort_keys=True)
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Model:
    """A loaded model. ``names``: class index to class name, renamed as models.yaml says."""

    entry: Entry
    names: Mapping[int, str]
    owner: Owner

    @property
    def version(self) -> str:
        return self.entry.version


def join_versions(versions: Iterable[str]) -> str:
    """The version of several models together: sorted, joined by ``+``."""
    return "+".join(sorted(set(versions)))


def read(path: Path, root: Path, threshold: float) -> dict[str, Entry]:
    """The entries of models.yaml at ``path``, weights found in ``root``, in the file's order.

    ``threshold`` is ``conf`` where an entry has none.

    Raises:
        config.ConfigError: the file or a weights file cannot be used; one line a fault.
    """
    document = config.load(path, "models")
    found: dict[str, Entry] = {}
    faults = []
    for name, item in document.data.items():
        at = document.where(name, "weights")
        weights = (root / item["weights"]).resolve()
        if not weights.is_relative_to(root.resolve()):
            faults.append(f"{at}{item['weights']!r} lies outside {root}; expected a file inside it")
            continue
        if not weights.is_file():
            faults.append(
                f"{at}{item['weights']!r} is not in {root}; "
                f"put it there or remove the entry{_weights_in(root)}"
            )
            continue
        try:
            sha256 = hash_file(weights)
        except OSError as error:
            faults.append(
                f"{at}{item['weights']!r} cannot be read: {error.strerror}; "
                "the service's user (1001) must be able to: chmod a+r"
            )
            continue
        if item.get("sha256", sha256).lower() != sha256:
            faults.append(
                f"{document.where(name, 'sha256')}expected {item['sha256']}, "
                f"but {weights} has {sha256}"
            )
            continue
        found[name] = _entry(name, weights, sha256, item, threshold)
    if faults:
        raise config.ConfigError("\n".join(faults))
    return found


def _entry(
    name: str, weights: Path, sha256: str, item: Mapping[str, Any], threshold: float
) -> Entry:
    return Entry(
        name=name,
        weights=weights,
        sha256=sha256,
        names={int(index): text for index, text in item.get("names", {}).items()},
        conf=float(item.get("conf", threshold)),
        iou=float(item.get("iou", DEFAULT_IOU)),
        imgsz=item.get("imgsz"),
    )


def _weights_in(root: Path) -> str:
    files = sorted(path.name for path in root.glob("*.pt"))[:10]
    return f". It has: {', '.join(files)}" if files else ". It has no .pt file"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Registry:
    """The models that can answer, all loaded and warmed up when it is made.

    ``default`` names the model that answers where nothing else chooses one. With ``custom`` a
    weights file inside ``root`` that models.yaml does not list may be asked for by its path.

    Raises:
        UnknownModel: ``default`` is not in ``entries``.
        engines.EngineError: weights cannot be loaded.
    """

    def __init__(
        self,
        entries: Mapping[str, Entry],
        device: str,
        default: str = "",
        custom: bool = False,
        root: Path | None = None,
        threshold: float = 0.5,
    ) -> None:
        self._device = device
        self._custom = root if custom else None
        self._threshold = threshold
        self._loading = threading.Lock()
        self.default = default or next(iter(entries), "")
        if self.default not in entries:
            raise UnknownModel(
                f"DEFAULT_MODEL: found {default!r}, expected one of {', '.join(entries)}"
            )
        self._models = {name: self._load(entry) for name, entry in entries.items()}
        self._by_path: dict[Path, Model] = {}

    def _load(self, entry: Entry) -> Model:
        engine = engines.load(entry.weights, self._device)
        wrong = sorted(set(entry.names) - set(engine.names))
        if wrong:
            raise engines.EngineError(
                f"names of {entry.name}: found class {wrong[0]}, but {entry.weights.name} "
                f"has classes 0 to {len(engine.names) - 1}"
            )
        engine.warm_up()
        log.info("loaded %s from %s: %d classes", entry.version, entry.weights, len(engine.names))
        return Model(entry, {**engine.names, **entry.names}, Owner(engine))

    def get(self, name: str) -> Model:
        """The model called ``name``.

        Raises:
            UnknownModel: there is none of that name.
        """
        if name in self._models:
            return self._models[name]
        known = list(self._models)
        raise UnknownModel(
            f"no model is called {name!r}{config.nearest(name, known)}; "
            f"models.yaml has: {', '.join(known)}"
        )

    def by_path(self, name: str) -> Model:
        """The model called ``name``, or, with ``custom``, the one of the weights file ``name``.

        Raises:
            UnknownModel: there is none of that name, nor such a file that may be asked for.
            engines.EngineError: the file cannot be loaded.
        """
        root = self._custom
        if root is None or name in self._models:
            return self.get(name)
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()) or path.suffix != ".pt" or not path.is_file():
            raise UnknownModel(
                f"{name!r} is neither in models.yaml nor a .pt file inside {root}; "
                f"models.yaml has: {', '.join(self._models)}"
            )
        with self._loading:  # two first requests load it once
            if path not in self._by_path:
                relative = str(path.relative_to(root.resolve()))
                entry = _entry(relative, path, hash_file(path), {}, self._threshold)
                self._by_path[path] = self._load(entry)
            return self._by_path[path]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())
