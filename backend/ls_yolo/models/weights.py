"""Weights files: what is in one, and a copy with other class names. ``ls-yolo weights``.

A ``.pt`` file is a pickle, which can name any code to run when it is read. `inspect` reads it
without running, or even importing, what it names; all else loads it as the engines do: see `safe`.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls_yolo import settings
from ls_yolo.files import hash_file

MAX_PICKLE = 64 * 1024 * 1024
"""The most bytes of pickle that are read; that of the largest YOLO is below a megabyte."""
TASKS = {
    "DetectionModel": "detect",
    "YOLOv10DetectionModel": "detect",
    "RTDETRDetectionModel": "detect",
    "WorldModel": "detect",
    "YOLOEModel": "detect",
    "SegmentationModel": "segment",
    "YOLOESegModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
}
"""The task of each of ultralytics' model classes."""


class WeightsError(ValueError):
    """A weights file cannot be read or written; the message says what was found and expected."""


def safe(environ: MutableMapping[str, str] | None = None) -> None:
    """Has ultralytics, which is not imported yet, load weights in its restricted way.

    It then takes tensors and the classes of YOLO models, and refuses whatever else a pickle names.
    ALLOW_UNSAFE_WEIGHTS=true turns that off.
    """
    environ = os.environ if environ is None else environ
    setting = settings.BY_NAME["ALLOW_UNSAFE_WEIGHTS"]
    allowed = setting.parse(environ.get(setting.name, "") or setting.default)
    environ["ULTRALYTICS_SAFE_LOAD"] = "0" if allowed else "1"


@dataclass(frozen=True)
class Info:
    """What a weights file says of itself. Nothing of it is checked; empty: it does not say.

    ``size`` is in bytes, ``parameters`` a count, ``imgsz`` in pixels.
    """

    file: str
    size: int
    sha256: str
    task: str
    names: Mapping[int, str]
    parameters: int
    imgsz: str
    version: str
    date: str
    model: str

    def text(self) -> str:
        """For people to read, a line each."""
        rows = {
            "file": f"{self.file} ({self.size / 1e6:.1f} MB)",
            "sha256": self.sha256,
            "task": self.task or "unknown",
            "parameters": f"{self.parameters:,}",
            "image size": self.imgsz or "unknown",
            "trained from": self.model or "unknown",
            "ultralytics": self.version or "unknown",
            "date": self.date or "unknown",
            "classes": f"{len(self.names)}",
        }
        lines = [f"{name:13} {value}" for name, value in rows.items()]
        return "\n".join(lines + [f"  {index:3} {name}" for index, name in self.names.items()])


class _Named:
    """Stands in for whatever class or function a pickle names: it takes all and does nothing."""

    state: Any = None

    def __new__(cls, *arguments: Any, **more: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def get(self, name: str) -> Any:
        return self.state.get(name) if isinstance(self.state, dict) else None


# In Python, not in C: there a few bytes of pickle can ask for gigabytes of memo.
class _Reader(pickle._Unpickler):
    """Reads a pickle without importing or calling anything that it names."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(name.rpartition(".")[2], (_Named,), {})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and isinstance(pid[4], int):
            self.storages[str(pid[2])] = pid[4]
        return _Named()

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("extensions are not read")


def inspect(path: Path) -> Info:
    """What the weights file ``path`` says of itself, no code of it being run.

    Raises:
        WeightsError: it is not a weights file of ultralytics.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
            if len(names) != 1:
                raise WeightsError(f"{path}: found no data.pkl in it, expected weights of PyTorch")
            with archive.open(names[0]) as file:
                if len(file.read(MAX_PICKLE + 1)) > MAX_PICKLE:
                    raise WeightsError(f"{path}: its data.pkl is over {MAX_PICKLE >> 20} MB")
            with archive.open(names[0]) as file:
                reader = _Reader(file)
                content = reader.load()
    except (WeightsError, FileNotFoundError):
        raise
    except Exception as error:  # a pickle can break its reader in any way
        raise WeightsError(
            f"{path}: cannot be read as weights of PyTorch 1.6 or later: "
            f"{type(error).__name__}: {error}"
        ) from None
    content = content if isinstance(content, dict) else {"model": content}
    model = content.get("ema") or content.get("model")
    if not isinstance(model, _Named):
        raise WeightsError(
            f"{path}: found {type(model).__name__} where ultralytics keeps its model; expected a "
            ".pt file as its training writes it"
        )
    arguments = content.get("train_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    return Info(
        file=str(path),
        size=path.stat().st_size,
        sha256=hash_file(path),
        task=TASKS.get(type(model).__name__) or _text(arguments.get("task")),
        names=_names(model.get("names")),
        parameters=sum(reader.storages.values()),
        imgsz=_text(arguments.get("imgsz")),
        version=_text(content.get("version")),
        date=_text(content.get("date")),
        model=_text(arguments.get("model")),
    )


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""


def _names(value: Any) -> dict[int, str]:
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {int(i): str(n) for i, n in value.items() if isinstance(i, int)}


def rename(path: Path, names: Mapping[int, str], output: Path) -> None:
    """Writes a copy of the weights ``path`` to ``output``, in which classes have other ``names``.

    Raises:
        WeightsError: a class is not there, the file cannot be loaded, or ``output`` is there.
    """
    known = inspect(path).names
    if wrong := sorted(set(names) - set(known)):
        raise WeightsError(
            f"{path}: found no class {wrong[0]} in it, expected one of 0 to {len(known) - 1}"
        )
    if output.exists():
        raise WeightsError(f"{output}: is there already; expected a new file to write")
    try:
        safe()
        import torch  # type: ignore[import-not-found,unused-ignore]
        from ultralytics.nn.tasks import torch_safe_load
    except ImportError as error:
        raise WeightsError(
            f"{error.name} is not here, which writing weights needs; run it in the backend's "
            "container, or put the names in models.yaml"
        ) from None
    try:
        content, _ = torch_safe_load(path)
        for key in ("model", "ema"):
            if (model := content.get(key)) is not None:
                model.names = {**known, **names}
    except Exception as error:  # ultralytics raises whatever unpickling raised
        raise WeightsError(f"{path}: cannot be loaded as YOLO weights: {error}") from None
    try:
        with output.open("xb") as file:
            try:
                torch.save(content, file)
            except BaseException:
                output.unlink()
                raise
    except OSError as error:
        raise WeightsError(f"{output}: cannot be written: {error.strerror}") from None
