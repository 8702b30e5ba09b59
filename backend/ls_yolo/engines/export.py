"""OpenVINO's form of weights: made once, kept in a folder, and never half there.

    python -m ls_yolo.engines.export WEIGHTS SHA256 CACHE IMGSZ

makes it, in a process of its own: what the conversion takes of memory is given back, and what it
breaks is not the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ls_yolo.engines import letterbox
from ls_yolo.engines.network import Network
from ls_yolo.files import hash_file

log = logging.getLogger(__name__)

FORM = 2
"""Counts up whenever this code makes another thing of the same weights."""
MANIFEST, FILES = "manifest.json", ("model.xml", "model.bin")
UNUSED = 30 * 24 * 3600
"""An export that no process has loaded for so long is removed, in seconds."""
LONGEST = 3600
"""An export that takes longer is given up, in seconds."""


class ExportError(RuntimeError):
    """Weights cannot be exported; the message has the reason."""


@dataclass(frozen=True)
class Export:
    """Exported weights.

    model: the file that OpenVINO reads.
    int8: how well the int8 model agrees with the float one, 0 to 1; None where it is the float one.
    """

    model: Path
    network: Network
    int8: float | None = None


def key(sha256: str, imgsz: int | None, versions: dict[str, str] | None = None) -> str:
    """The name of an export: it changes with the weights and with all that makes it."""
    if versions is None:
        versions = {name: version(name) for name in ("openvino", "torch", "ultralytics")}
    made = {"sha256": sha256, "imgsz": imgsz, "dynamic": True, "form": FORM, **versions}
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:32]


def find(cache: Path, name: str) -> Export | None:
    """The export called ``name``, whole; None where there is none or it is damaged."""
    folder = cache / name
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for file in FILES:
            if hash_file(folder / file) != manifest["files"][file]:
                raise ValueError(f"{file} is not what was written")
        found = Export(folder / FILES[0], Network.read(manifest), manifest.get("int8"))
    except FileNotFoundError:
        if folder.exists():
            log.warning("%s: damaged, so it is made anew: a file is missing", folder)
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s: damaged, so it is made anew: %s", folder, error)
        return None
    with contextlib.suppress(OSError):  # a folder that is read-only is as good
        os.utime(folder)
    return found


def write(cache: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> None:
    """Puts an export into the cache, or leaves the cache as it was.

    ``make`` writes `FILES` into the folder that it is given and returns what else is in the
    manifest. One process at a time gets so far; one that finds the export there makes none.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
        whatever ``make`` raises.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        if find(cache, name):
            return
        # What a process that was killed left; under the lock it is nobody's.
        for old in cache.glob(".making-*"):
            shutil.rmtree(old, ignore_errors=True)
        _remove_unused(cache)
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
        try:
            manifest = make(folder)
            manifest["files"] = {file: hash_file(folder / file) for file in FILES}
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
            for path in folder.iterdir():
                if path.name not in (MANIFEST, *FILES):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                else:
                    _sync(path)
            shutil.rmtree(cache / name, ignore_errors=True)
            folder.chmod(0o755)
            folder.rename(cache / name)
            _sync(cache)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Exporter:
    """Makes one export by a process of its own: in floats, or in int8 of those and of the images in
    the folder ``images``."""

    def __init__(
        self,
        weights: Path,
        sha256: str,
        cache: Path,
        imgsz: int | None,
        images: Path | None = None,
    ) -> None:
        self._words = ["ls_yolo.engines.int8" if images else "ls_yolo.engines.export"]
        self._words += [str(weights), sha256, str(cache), str(imgsz or 0)]
        self._words += [str(images)] if images else []
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Returns once the export is in the cache.

        Raises:
            ExportError: it cannot be made, or `stop` was called.
        """
        package = str(Path(__file__).parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            # The GPU belongs to the service; nothing is fetched or installed.
            "CUDA_VISIBLE_DEVICES": "",
            "YOLO_AUTOINSTALL": "false",
            "YOLO_OFFLINE": "true",
        }
        with self._lock:
            if self._stopped:
                raise ExportError("stopped")
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._words],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, errors="replace", env=environment,
            )  # fmt: skip
        try:
            _, said = self._process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise ExportError(f"not done within {LONGEST} seconds") from None
        if self._process.returncode:
            lines = said.strip().splitlines()
            raise ExportError(lines[-1] if lines else f"exit code {self._process.returncode}")

    def stop(self) -> None:
        """Ends the process, if it runs, and lets none start."""
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()


def main(arguments: list[str]) -> int:
    weights, sha256, cache, imgsz = arguments
    os.nice(10)  # the model answers meanwhile
    path, size = Path(weights).resolve(), int(imgsz) or None

    def make(folder: Path) -> dict[str, Any]:
        with contextlib.chdir(folder):
            return _make(path, sha256, size, folder)

    return report(lambda: write(Path(cache).resolve(), key(sha256, size), make))


def report(work: Callable[[], None]) -> int:
    """The exit code of a process that does ``work``: 1 if that fails, and why on a line."""
    try:
        work()
    except ExportError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # torch, ultralytics, OpenVINO and nncf raise all kinds
        print(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", file=sys.stderr)
        return 1
    return 0


def _make(weights: Path, sha256: str, imgsz: int | None, folder: Path) -> dict[str, Any]:
    """Exports ``weights`` into ``folder``, in which this process stands, and compares what both say
    of an image. ultralytics rewrites some paths, but no bare name of ours."""
    import yaml
    from ultralytics import YOLO

    from ls_yolo.engines.torch_engine import describe

    # ultralytics writes beside the weights, whose own folder is read-only; and what is exported
    # must be what was hashed, even if the file is being replaced right now.
    shutil.copyfile(weights, folder / "weights.pt")
    if hash_file(folder / "weights.pt") != sha256:
        raise ExportError(f"{weights} was changed meanwhile")
    yolo = YOLO("weights.pt")
    network = describe(yolo, imgsz)
    network = replace(network, imgsz=letterbox.round_up(network.imgsz, network.stride))
    if network.task == "semantic":
        _keep_logits()
    made = folder / str(
        yolo.export(format="openvino", dynamic=True, imgsz=network.imgsz, device="cpu")
    )
    for file, source in zip(FILES, ("weights.xml", "weights.bin"), strict=True):
        (made / source).rename(folder / file)
    end2end = bool(yaml.safe_load((made / "metadata.yaml").read_text())["end2end"])
    network = replace(network, end2end=end2end)
    _compare(yolo, folder / FILES[0], network)
    return network.manifest()


def _keep_logits() -> None:
    """Has networks for semantic exported as torch runs them: ultralytics would have an export say
    the class of each pixel of the input and not how sure it is."""
    from ultralytics.nn.modules.head import SemanticSegment

    SemanticSegment.forward = lambda head, features: head.classifier(features[0])


def _compare(yolo: Any, model: Path, network: Network) -> None:
    """Raises an ExportError where the export computes something else than the weights.

    On an input that is no square where it can be, because that is what an export gets wrong.
    """
    import numpy as np
    import openvino as ov
    import torch  # type: ignore[import-not-found,unused-ignore]
    from ultralytics.nn.autobackend import AutoBackend

    from ls_yolo.engines.torch_engine import first

    imgsz, stride = network.imgsz, network.stride
    square = network.end2end or network.transformer or network.task == "classify"
    height = imgsz if square else max(imgsz // 2 // stride, 1) * stride
    shape = (1, network.channels, height, imgsz)
    # Half of an image: smooth shapes, on which a network says more than on noise.
    y, x = np.mgrid[0 : shape[2], 0 : shape[3]].astype(np.float32)
    planes = [(np.sin(x / a) * np.cos(y / a) + 1) / 2 for a in (17.0, 41.0, 97.0)]
    picture = np.stack(planes[: network.channels])[None]
    with torch.inference_mode():
        whole = AutoBackend(yolo.model, verbose=False, end2end=False).eval()
        wanted = [output.numpy() for output in first(whole(torch.from_numpy(picture)))]
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(str(model), "CPU", config)
    found = [np.asarray(output) for output in compiled(picture).values()]
    if network.end2end or network.transformer:  # of equals the order is open
        wanted[0], found[0] = (np.sort(a[0][..., 4], axis=-1)[:, None] for a in (wanted, found))
    for one, other in zip(wanted, found, strict=True):
        if one.shape != other.shape:
            raise ExportError(f"the export answers in shape {other.shape}, not {one.shape}")
        if not (worst := apart(one, other)) < 0.01:
            raise ExportError(
                f"the export computes something else than the weights: off by {worst:.3f}"
            )


def apart(one: Any, other: Any) -> float:
    """How far two outputs of a network are apart, arrays of shape (1, channels, ...): the largest
    difference, each channel by its own largest number, or by 1. Coordinates reach hundreds, scores
    1, and one that is wrong must not hide behind the others."""
    import numpy as np

    rest = tuple(axis for axis in range(one.ndim) if axis != 1)
    largest = np.abs(one).max(axis=rest, keepdims=True)
    return float((np.abs(one - other) / np.maximum(largest, 1)).max())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:  # the lock goes with the process, however that ends
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(cache: Path) -> None:
    for folder in cache.iterdir():
        with contextlib.suppress(OSError):
            if (folder / MANIFEST).exists() and time.time() - folder.stat().st_mtime > UNUSED:
                shutil.rmtree(folder)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
