"""Trackers: which one a control asks for, with what parameters, and those of ultralytics."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import yaml

from ls_yolo.labelstudio.label_config import Control, LabelConfigError
from ls_yolo.models.weights import safe
from ls_yolo.results import Boxes, Image
from ls_yolo.text import nearest, some

DEFAULT = "botsort"
"""The tracker where the control does not say (``model_tracker``)."""
TYPES = ("botsort", "bytetrack", "deepocsort", "fasttrack", "ocsort")
"""The trackers that can be had. ultralytics has one more, ``tracktrack``, which needs what the
suppression of overlaps throws away."""

Parameters = Mapping[str, Any]
"""What a tracker's YAML file says; ``tracker_type`` is one of `TYPES`."""


@dataclass(frozen=True, slots=True)
class Sights:
    """The objects that are followed and were seen in a frame.

    ids: int64, shape (n,): which objects, from 1.
    boxes: where they are, n of them, in the order of ``ids``.
    """

    ids: npt.NDArray[np.int64]
    boxes: Boxes


class Tracker(Protocol):
    """Follows objects from frame to frame of one video. Not to be shared between threads."""

    def update(self, boxes: Boxes, image: Image) -> Sights:
        """What is seen of the objects in the next frame, ``image``, in which ``boxes`` are."""


def built_in() -> Path | None:
    """The folder of ultralytics' own tracker files; None where it is not installed."""
    found = importlib.util.find_spec("ultralytics")
    return (
        Path(next(iter(found.submodule_search_locations or ()))) / "cfg/trackers" if found else None
    )


def parameters(control: Control, root: Path, own: Path | None, custom: bool = False) -> Parameters:
    """The parameters of the tracker that ``control`` asks for: ``model_tracker`` names a YAML file
    of the folder ``root``, without its suffix, or else one of ``own``; attributes that begin with
    the tracker's name (``botsort_track_buffer``) replace what is in it. ``custom``: whether weights
    that models.yaml does not list may be named.

    Raises:
        LabelConfigError: there is no such file, it cannot be used, or an attribute cannot.
    """
    name = control.attributes.get("model_tracker", "").strip() or DEFAULT
    name = name.removesuffix(".yaml")
    where = f"model_tracker of {control.from_name!r}: "
    found = _read(where, name, root, own)
    kind = found.get("tracker_type")
    if kind not in TYPES:
        raise LabelConfigError(
            f"{where}{name}.yaml has the tracker_type {kind!r}; expected one of {some(TYPES)}"
        )
    if own is not None:  # a file need not say everything
        found = {**_file(where, own / f"{kind}.yaml"), **found}
    for key, text in control.attributes.items():
        prefix = next((p for p in (f"{name.lower()}_", f"{kind}_") if key.startswith(p)), "")
        if prefix and key.removeprefix(prefix) == "tracker_type":
            raise LabelConfigError(
                f"{key} of {control.from_name!r}: a tracker has its own; set model_tracker"
            )
        if prefix:
            found[key.removeprefix(prefix)] = _value(
                control, key, key.removeprefix(prefix), text, found
            )
    if found.get("with_reid"):
        found["model"] = _reid(where, str(found.get("model", "auto")), root, custom)
    return found


def _read(where: str, name: str, root: Path, own: Path | None) -> dict[str, Any]:
    root = root.resolve()
    path = (root / f"{name}.yaml").resolve()
    if not path.is_relative_to(root):
        raise LabelConfigError(
            f"{where}{name!r} lies outside {root}; only files inside it are read"
        )
    with contextlib.suppress(OSError):  # a name that is too long for a file
        if path.is_file():
            return _file(where, path)
    if own is not None and name in TYPES:
        return _file(where, own / f"{name}.yaml")
    raise LabelConfigError(
        f"{where}found {name!r}, expected one of {some(TYPES)}, or a file {name}.yaml in {root}"
        + nearest(name, list(TYPES))
    )


def _file(where: str, path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LabelConfigError(f"{where}{path.name} cannot be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise LabelConfigError(f"{where}{path.name} is no list of names and values")
    return found


def _value(control: Control, attribute: str, key: str, text: str, known: Mapping[str, Any]) -> Any:
    """``text`` as a value of the kind that ``known`` has for ``key``."""
    if key not in known:
        names = sorted(known.keys() - {"tracker_type"})
        raise LabelConfigError(
            f"{attribute} of {control.from_name!r}: the tracker has no {key!r}; "
            f"it has {some(names, 99)}{nearest(key, names)}"
        )
    old = known[key]
    if isinstance(old, bool):
        return control.flag(attribute, old)
    if isinstance(old, int | float):
        number = control.number(attribute)
        if number is None:
            return old
        if isinstance(old, int) and number != int(number):
            raise LabelConfigError(
                f"{attribute} of {control.from_name!r}: found {text!r}, expected a whole number"
            )
        return type(old)(number)
    return text.strip()


def _reid(where: str, model: str, root: Path, custom: bool) -> str:
    """The weights file that tells objects by how they look."""
    if model == "auto":
        raise LabelConfigError(
            f"{where}with_reid with the model 'auto' needs features from inside the detector, "
            "which are not there; expected a weights file (.pt) of the models folder as its "
            "model, or with_reid: false"
        )
    if not custom:
        raise LabelConfigError(
            f"{where}found the model {model!r} for with_reid, which models.yaml cannot list; set "
            "ALLOW_CUSTOM_MODEL_PATH=true to let labeling configs name weights, or with_reid: false"
        )
    path = (root / model).resolve()
    if not path.is_relative_to(root.resolve()) or path.suffix != ".pt" or not path.is_file():
        raise LabelConfigError(
            f"{where}found the model {model!r} for with_reid, expected a .pt file inside {root}"
        )
    return str(path)


def make(found: Parameters) -> Tracker:
    """The tracker of ultralytics with the parameters ``found``.

    Raises:
        LabelConfigError: it does not take them.
    """
    safe()  # before ultralytics is imported
    from ultralytics.trackers.track import TRACKER_MAP

    try:
        return _Ultralytics(TRACKER_MAP[found["tracker_type"]](SimpleNamespace(**found)))
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise LabelConfigError(f"the tracker {found['tracker_type']}: {error}") from None


class _Ultralytics:
    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker

    def update(self, boxes: Boxes, image: Image) -> Sights:
        rows = self._tracker.update(_Detections(boxes.xyxy, boxes.scores, boxes.classes), image)
        rows = np.asarray(rows, np.float32).reshape(-1, 8)  # box, id, score, class, which detection
        classes = rows[:, 6].astype(np.int64)
        return Sights(rows[:, 4].astype(np.int64), Boxes(rows[:, :4], rows[:, 5], classes))


@dataclass(frozen=True, slots=True)
class _Detections:
    """Boxes as the trackers of ultralytics take them."""

    xyxy: npt.NDArray[np.float32]
    conf: npt.NDArray[np.float32]
    cls: npt.NDArray[np.int64]

    @property
    def xywh(self) -> npt.NDArray[np.float32]:
        first, last = self.xyxy[:, :2], self.xyxy[:, 2:]
        return np.concatenate([(first + last) / 2, last - first], axis=1)

    def __len__(self) -> int:
        return len(self.conf)

    def __getitem__(self, which: npt.NDArray[np.bool_]) -> _Detections:
        return _Detections(self.xyxy[which], self.conf[which], self.cls[which])
