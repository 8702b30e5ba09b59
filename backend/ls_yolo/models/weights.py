"""Weights files: what is in one, and a copy with other class names. ``ls-yolo weights``.

A ``.pt`` file is a pickle, which can name any code to run when it is read. `inspect` reads it
without running, or even importing, what it names; all else loads it as the engines do: see `safe`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import sys
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ls_yolo import settings
from ls_yolo.files import hash_file
from ls_yolo.models.sam import SAM

MAX_PICKLE = 64 * 1024 * 1024
"""The most bytes of pickle that are read; that of the largest YOLO is below a megabyte."""
TASKS = {
    "DetectionModel": "detect",
    "YOLOv10DetectionModel": "detect",
    "RTDETRDetectionModel": "detect",
    "WorldModel": "detect",
    "YOLOEModel": "detect",
    "SegmentationModel": "segment",
    "SemanticSegmentationModel": "semantic",
    "YOLOESegModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
    "DepthModel": "depth",
}
"""The task of each of ultralytics' model classes."""


NEEDED = "expected a .pt file as training with ultralytics writes it"
TRUSTED = {"torch", "torchvision", "numpy", "clip", "ultralytics"}
"""The packages whose classes weights of ultralytics name, besides Python's own."""
FOREIGN = {
    "yolov5": "weights of the YOLOv5 repository, which ultralytics cannot load; train the model "
    "anew with the ultralytics package, from yolov5nu.pt or another of its *u.pt files",
    "yolov7": "weights of the YOLOv7 repository, which ultralytics cannot load; train the model "
    "anew with the ultralytics package",
    "sam": "weights of a SAM (Segment Anything), which is no YOLO; say `task: sam` in its entry of "
    "models.yaml",
    "state": "a state dict, which holds numbers without the network they belong to; save the whole "
    "checkpoint instead: best.pt of the training, or YOLO.save()",
    "script": "a TorchScript export, which cannot be loaded as weights; put the .pt file here that "
    "it was exported from",
    "lfs": "a Git LFS pointer, not the file that it stands for; run `git lfs pull` where it was "
    "cloned",
    "page": "a web page saved as weights; download the file itself: of a page of GitHub, its raw "
    "form",
    "empty": "an empty file; copy or download it again",
}
"""What else people put in place of weights, and what to do."""
_ALIAS = re.compile(r"\S*/ls-yolo-weights-\w+/weights\.pt")


class WeightsError(ValueError):
    """A weights file cannot be read or written; the message says what was found and expected."""


def allowed(environ: Mapping[str, str] | None = None) -> bool:
    """Whether ALLOW_UNSAFE_WEIGHTS lets a file name code of any package."""
    environ = os.environ if environ is None else environ
    setting = settings.BY_NAME["ALLOW_UNSAFE_WEIGHTS"]
    return bool(setting.parse(environ.get(setting.name, "") or setting.default))


def safe(environ: MutableMapping[str, str] | None = None) -> None:
    """Has ultralytics, which is not imported yet, load weights in its restricted way.

    It then takes tensors and the classes of YOLO models, and refuses whatever else a pickle names.
    ALLOW_UNSAFE_WEIGHTS=true turns that off.
    """
    environ = os.environ if environ is None else environ
    environ["ULTRALYTICS_SAFE_LOAD"] = "0" if allowed(environ) else "1"


@contextlib.contextmanager
def alias(path: Path) -> Iterator[Path]:
    """Another path of the file ``path``, for ultralytics: it loads another file than was asked for
    where it knows better (yolov5n.pt becomes yolov5nu.pt, quotes vanish), but not of this name.

    Raises:
        OSError: the file cannot be read.
    """
    path.open("rb").close()  # or ultralytics would look for it on the web
    with tempfile.TemporaryDirectory(prefix="ls-yolo-weights-") as folder:
        link = Path(folder, "weights.pt")
        link.symlink_to(path.resolve())
        yield link


def explain(path: Path, error: Exception) -> str:
    """Why ``path`` cannot be loaded, where ultralytics says ``error``."""
    try:
        inspect_for(path, sam=False, sha256="-")
    except (WeightsError, OSError) as known:
        return str(known)
    said = _ALIAS.sub(lambda _: str(path), str(error))
    return f"{path}: cannot be loaded as YOLO weights: {said}"


def wrong_channels(path: Path, channels: int) -> str:
    """What to say of a model whose images have ``channels`` channels."""
    return (
        f"{path}: found a model for images of {channels} channels, expected 3 (colours) or 1 "
        "(grey); train it with `channels: 3` or `channels: 1` in the data file"
    )


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
    module = ""

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
        self.named: set[tuple[str, str]] = set()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        self.named.add((module, name))
        return type(name.rpartition(".")[2], (_Named,), {"module": module})

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 5 and isinstance(pid[4], int):
            self.storages[str(pid[2])] = pid[4]
        return _Named()

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("extensions are not read")


def inspect(path: Path, sha256: str = "") -> Info:
    """What the weights file ``path`` says of itself, no code of it being run.

    sha256: of the file, in hexadecimal, where it is known; it is made here where it is not.

    Raises:
        WeightsError: it is not a weights file of ultralytics; the message says what it is.
        OSError: it cannot be read.
    """
    _check_start(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.rpartition("/")[2] == "data.pkl"]
            if any(n.rpartition("/")[2] == "constants.pkl" for n in archive.namelist()):
                raise _found(path, FOREIGN["script"])
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
    _check_code(path, reader.named)
    if _of_sam(content):
        size, parameters = path.stat().st_size, sum(reader.storages.values())
        sha256 = sha256 or hash_file(path)
        return Info(str(path), size, sha256, SAM, {}, parameters, "1024", "", "", "")
    model = _check_model(path, content, model)
    arguments = content.get("train_args")
    arguments = arguments if isinstance(arguments, dict) else {}
    return Info(
        file=str(path),
        size=path.stat().st_size,
        sha256=sha256 or hash_file(path),
        task=TASKS.get(type(model).__name__) or _text(arguments.get("task")),
        names=_names(model.get("names")),
        parameters=sum(reader.storages.values()),
        imgsz=_text(arguments.get("imgsz")),
        version=_text(content.get("version")),
        date=_text(content.get("date")),
        model=_text(arguments.get("model")),
    )


def inspect_for(path: Path, sam: bool, sha256: str = "") -> Info:
    """As `inspect`, of weights that must be those of a SAM, or of a YOLO.

    Raises:
        WeightsError, OSError: see `inspect`; or it is the other of the two.
    """
    found = inspect(path, sha256)
    if (found.task == SAM) == sam:
        return found
    if sam:
        raise WeightsError(
            f"{path}: found a model of ultralytics for {found.task or 'an unknown task'!r}, "
            "expected the weights of a SAM; take `task: sam` out of its entry of models.yaml"
        )
    raise WeightsError(f"{path}: found {FOREIGN['sam']}")


def _found(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: found {what}; {NEEDED}")


def _check_start(path: Path) -> None:
    """Raises a WeightsError where the file's first bytes say that it is something else."""
    with path.open("rb") as file:
        start = file.read(512).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        raise _found(path, FOREIGN["lfs"])
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise _found(path, FOREIGN["page"])
    if not start and not path.stat().st_size:
        raise _found(path, FOREIGN["empty"])


def _check_code(path: Path, named: set[tuple[str, str]]) -> None:
    """Raises a WeightsError where the pickle of ``path`` names code that is not loaded.

    named: module and name of each class and function in it.
    """
    if {module for module, _ in named} & {"models.yolo", "models.common", "models.experimental"}:
        seven = {"IDetect", "IAuxDetect", "IKeypoint", "IBin", "MP", "SP", "SPPCSPC", "ReOrg"}
        raise _found(path, FOREIGN["yolov7" if seven & {n for _, n in named} else "yolov5"])
    own = sorted(
        f"{module}.{name}"
        for module, name in named
        if (package := module.partition(".")[0]) not in TRUSTED
        and (package == "__main__" or package not in sys.stdlib_module_names | {"__builtin__"})
    )
    if own and not allowed():
        raise WeightsError(
            f"{path}: found code of its own in it, {own[0]}, which is not loaded; expected classes "
            "of torch and ultralytics. If you trust whoever made the file, set "
            "ALLOW_UNSAFE_WEIGHTS=true, which lets it run any code in the backend, and have "
            f"{own[0].partition('.')[0]} installed there"
        )


def _of_sam(content: Mapping[Any, Any]) -> bool:
    """Whether a pickle is the state dict of a SAM, alone or as ``model`` of a checkpoint."""
    inner = content.get("model")
    names = [str(name) for name in (inner if isinstance(inner, dict) else content)]
    return all(
        any(name.startswith(part) for name in names)
        for part in ("image_encoder.", ("mask_decoder.", "sam_mask_decoder."))
    )


def _check_model(path: Path, content: Mapping[Any, Any], model: Any) -> _Named:
    """``model``; a WeightsError where the pickle of ``path`` holds no model of ultralytics."""
    numbers = model if isinstance(model, dict) else content.get("state_dict")
    if numbers is None and not isinstance(model, _Named):
        numbers = content
    if isinstance(numbers, dict) and any(
        isinstance(value, _Named) and type(value).__name__.startswith("_rebuild")
        for value in numbers.values()
    ):
        raise _found(path, FOREIGN["state"])
    if not isinstance(model, _Named):
        raise _found(path, f"{type(model).__name__} where ultralytics keeps its model")
    return model


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
    known = inspect_for(path, sam=False).names
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
        with alias(path) as link:
            content, _ = torch_safe_load(link)
        for key in ("model", "ema"):
            if (model := content.get(key)) is not None:
                model.names = {**known, **names}
    except Exception as error:  # ultralytics raises whatever unpickling raised
        raise WeightsError(explain(path, error)) from None
    try:
        with output.open("xb") as file:
            try:
                torch.save(content, file)
            except BaseException:
                output.unlink()
                raise
    except OSError as error:
        raise WeightsError(f"{output}: cannot be written: {error.strerror}") from None
