"""models.yaml: the entries, and the weights files that they name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ls_yolo import config
from ls_yolo.files import hash_file
from ls_yolo.models import sam

DEFAULT_IOU = 0.7
"""The overlap above which two boxes of a class are one: ultralytics' own default."""

Fingerprint = tuple[str, int, int, int, int]
"""Where a file really lies, its inode, its size in bytes, its times of writing and of change in ns.

Whoever replaces or writes a file changes it, on NFS and behind Kubernetes' links too, where no
event tells of it."""


@dataclass(frozen=True)
class ModelConfig:
    """An entry of models.yaml. ``weights`` is absolute, ``conf`` and ``iou`` are 0 to 1, ``imgsz``
    and ``slice``, the side of the slices that an image is cut into, are in pixels; None: no slices.
    ``task`` is what the weights are for, as ultralytics calls it, or `sam.SAM`; None: whatever they
    are. ``architecture``: one of `sam.ARCHITECTURES`; None: it is no SAM."""

    name: str
    weights: Path
    sha256: str
    names: Mapping[int, str]
    conf: float
    iou: float
    imgsz: int | None
    slice: int | None = None
    task: str | None = None
    architecture: str | None = None

    @property
    def version(self) -> str:
        """``<name>@<12 digits>``: a hash of the weights and of what changes answers."""
        settings: dict[str, Any] = {
            "names": {str(i): n for i, n in sorted(self.names.items())},
            "conf": self.conf,
            "iou": self.iou,
            "imgsz": self.imgsz,
            # Left out where it is not set: a version stays what it was before there were slices.
            **({"slice": self.slice} if self.slice else {}),
        }
        if self.architecture:  # the rest is not its own, so it changes nothing
            settings = {"architecture": self.architecture}
        text = self.sha256 + json.dumps(settings, sort_keys=True)
        return f"{self.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Spec:
    """What models.yaml says of a model, before its weights are looked at.

    ``where`` begins an error about the weights, and ``where_hash`` one about ``sha256``.
    """

    name: str
    item: Mapping[str, Any] = field(hash=False)
    root: Path
    threshold: float
    where: str = ""
    where_hash: str = ""

    def same(self, other: Spec) -> bool:
        """Whether both ask for the same model, wherever they stand in the file."""
        return (self.name, self.item, self.root, self.threshold) == (
            other.name,
            other.item,
            other.root,
            other.threshold,
        )

    @property
    def sam(self) -> bool:
        """Whether it is a SAM."""
        return sam.is_sam(self.item)

    @property
    def path(self) -> Path:
        """The weights file, links followed.

        Raises:
            config.ConfigError: it is not in the models folder.
        """
        wanted: str = self.item["weights"]
        try:
            path = (self.root / wanted).resolve()
            inside, found = path.is_relative_to(self.root.resolve()), path.is_file()
        except (OSError, RuntimeError) as error:  # links in a circle, a server that is gone
            raise config.ConfigError(f"{self.where}{wanted!r}: {error}") from None
        if not inside:
            raise config.ConfigError(
                f"{self.where}{wanted!r} lies outside {self.root}; expected a file inside it"
            )
        if not found:
            raise config.ConfigError(
                f"{self.where}{wanted!r} is not in {self.root}; "
                f"put it there or remove the entry{_weights_in(self.root)}"
            )
        return path

    def fingerprint(self) -> Fingerprint | None:
        """What changes when the weights file does; None where there is no such file."""
        try:
            path = self.path
            found = path.stat()
        except (config.ConfigError, OSError):
            return None
        return str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def entry(self) -> ModelConfig:
        """The entry, its weights hashed.

        Raises:
            config.ConfigError: the weights cannot be used.
        """
        path = self.path
        try:
            sha256 = hash_file(path)
        except OSError as error:
            raise config.ConfigError(
                f"{self.where}{self.item['weights']!r} cannot be read: {error.strerror}; "
                "the service's user (1001) must be able to: chmod a+r"
            ) from None
        if self.item.get("sha256", sha256).lower() != sha256:
            raise config.ConfigError(
                f"{self.where_hash}expected {self.item['sha256']}, but {path} has {sha256}"
            )
        return ModelConfig(
            name=self.name,
            weights=path,
            sha256=sha256,
            names={int(index): text for index, text in self.item.get("names", {}).items()},
            conf=float(self.item.get("conf", self.threshold)),
            iou=float(self.item.get("iou", DEFAULT_IOU)),
            imgsz=self.item.get("imgsz"),
            slice=self.item.get("slice"),
            task=self.item.get("task"),
            architecture=sam.architecture(self.item),
        )


@dataclass(frozen=True)
class Source:
    """Where models are listed (``path``) and their weights lie (``root``).

    ``threshold`` is ``conf``, 0 to 1, where an entry has none.
    """

    path: Path
    root: Path
    threshold: float

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Source:
        """Where the settings ``values`` say."""
        return cls(
            Path(values["MODELS_CONFIG"]),
            Path(values["MODEL_ROOT"]),
            values["MODEL_SCORE_THRESHOLD"],
        )

    def specs(self) -> dict[str, Spec]:
        """What models.yaml says, in the file's order; weights are not looked at.

        Raises:
            config.ConfigError: the file cannot be used.
        """
        document = config.load(self.path, "models")
        faults = [
            document.where(name, fault[0]) + fault[1]
            for name, item in document.data.items()
            if (fault := sam.fault(item))
        ]
        if faults:
            raise config.ConfigError("\n".join(faults))
        return {
            name: Spec(
                name,
                item,
                self.root,
                self.threshold,
                document.where(name, "weights"),
                document.where(name, "sha256"),
            )
            for name, item in document.data.items()
        }

    def entries(self) -> dict[str, ModelConfig]:
        """The entries with their weights hashed, in the file's order.

        Raises:
            config.ConfigError: the file or a weights file cannot be used; one line a fault.
        """
        found, faults = {}, []
        for name, spec in self.specs().items():
            try:
                found[name] = spec.entry()
            except config.ConfigError as error:
                faults.append(str(error))
        if faults:
            raise config.ConfigError("\n".join(faults))
        return found

    def digest(self) -> str:
        """Changes whenever the content of models.yaml does; empty where it cannot be read."""
        try:
            return hash_file(self.path)
        except OSError:
            return ""

    def custom(self, relative: str) -> Spec:
        """A weights file of the models folder that models.yaml does not list."""
        return Spec(relative, {"weights": relative}, self.root, self.threshold)


def _weights_in(root: Path) -> str:
    files = sorted(path.name for path in root.glob("*.pt"))[:10]
    return f". It has: {', '.join(files)}" if files else ". It has no .pt file"
