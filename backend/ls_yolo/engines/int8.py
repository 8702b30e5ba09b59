"""int8 models: calibrated on the user's own images, and measured on others of them.

    python -m ls_yolo.engines.int8 WEIGHTS SHA256 CACHE IMGSZ IMAGES

makes it of the float export that the cache holds, in a process of its own; see `export`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ls_yolo import files
from ls_yolo.engines import export, mean_ap
from ls_yolo.engines.export import Export, ExportError
from ls_yolo.images import decode, limits
from ls_yolo.images.formats import SUFFIXES
from ls_yolo.results import Classes, Image, Result

FORM = 1
"""Counts up whenever this code makes another thing of the same export."""
LEAST, MOST = 100, 400
"""Of so many images at least it is made, and of so many at most."""
HELD_OUT = 4
"""Every so manyth image is kept for measuring."""
LOSS = 0.01
"""What the metric of the task may lose, 0 to 1."""
TRUTH = 0.5
"""Lowest score, 0 to 1, of the float model's objects that those in int8 are measured by."""
FEWEST_BOXES = 20
"""With fewer of them nothing is measured."""
LOWEST, IOU = 0.01, 0.7
"""The threshold of what is measured, and the overlap above which two boxes are one; 0 to 1."""


class Refused(ExportError):
    """The int8 model is not good enough, or there is too little to say so."""


def key(sha256: str, imgsz: int | None, images: Path) -> str:
    """The name of an int8 model in the cache. It stays when images are added."""
    made = [export.key(sha256, imgsz), str(images), FORM, version("nncf")]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:32]


def choose(folder: Path, decodes: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """The images of ``folder`` and below to calibrate on, and those to measure on.

    They are spread evenly over the names. ``decodes`` says which files can be used.

    Raises:
        Refused: there are fewer than `LEAST`.
    """
    found = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    spread = _spread(found, MOST)
    usable = [path for path in spread if decodes(path)]
    if len(usable) < LEAST:
        raise Refused(
            f"{folder} has {len(usable)} images that can be read, and at least {LEAST} are "
            "needed; put more of what you label there, or set CALIBRATION_IMAGES to their folder"
        )
    return (
        [path for number, path in enumerate(usable) if number % HELD_OUT],
        usable[::HELD_OUT],
    )


def _spread(files: Sequence[Path], most: int) -> list[Path]:
    if len(files) <= most:
        return list(files)
    return [files[number * len(files) // most] for number in range(most)]


def judge(truth: Sequence[Result], found: Sequence[Result]) -> float:
    """How well ``found`` agrees, 0 to 1 by the metric of its task, where ``truth``, the float
    model's, is right.

    Raises:
        Refused: it is more than `LOSS` below 1, or there is too little to say so.
    """
    truth = [result.above(TRUTH) for result in truth]
    classes = isinstance(truth[0], Classes)
    count = sum(1 if classes else len(mean_ap.objects(result).scores) for result in truth)
    if count < FEWEST_BOXES:
        raise Refused(
            f"the model finds {count} things on {len(truth)} images, and at least "
            f"{FEWEST_BOXES} are needed to measure by; set CALIBRATION_IMAGES to a folder of "
            "images of what it knows"
        )
    reached = mean_ap.agreement(truth, found)
    if reached < 1 - LOSS:
        of = "" if classes else f" ({count} objects)"
        raise Refused(
            f"the {mean_ap.METRICS[type(truth[0])]} falls by {100 * (1 - reached):.1f} points "
            f"against the float model on {len(truth)} images{of}, and {100 * LOSS:g} is "
            "allowed; more images may help, else set PRECISION=auto"
        )
    return reached


def make(cache: Path, sha256: str, imgsz: int | None, images: Path) -> None:
    """Puts the int8 model into the cache, or why it was refused.

    Raises:
        Refused: it is not good enough, now or at an earlier try with the same images.
        ExportError: the float export is not there.
    """
    name = key(sha256, imgsz, images)
    floats = export.find(cache, export.key(sha256, imgsz))
    if floats is None:
        raise ExportError("the float export is not there")
    calibrate, measure = choose(images, lambda path: _decode(path) is not None)
    seen = _digest([*calibrate, *measure])
    refusal = cache / f"{name}.refused"
    if refusal.exists():
        told = json.loads(refusal.read_text())
        if told["photos"] == seen:
            raise Refused(told["why"])
    try:
        export.write(cache, name, lambda folder: _make(floats, calibrate, measure, folder))
    except Refused as error:
        files.write(refusal, json.dumps({"photos": seen, "why": str(error)}))
        raise


def _make(
    floats: Export, calibrate: Sequence[Path], measure: Sequence[Path], folder: Path
) -> dict[str, Any]:
    # nncf reports to its makers what is done with it, unless it believes it is being tested.
    os.environ["NNCF_CI"] = "1"
    import nncf  # type: ignore[import-not-found,unused-ignore]
    import numpy as np
    import openvino as ov

    from ls_yolo.engines.openvino_engine import OpenVINOEngine

    engine = OpenVINOEngine(floats)

    def tensor(path: Path) -> Any:
        """An input of the export: float32, (1, channels, height, width), 0 to 1, red first."""
        pixels = engine.input.prepare(_image(path)).pixels
        return np.ascontiguousarray(pixels[None, ..., ::-1].transpose(0, 3, 1, 2), np.float32) / 255

    model = ov.Core().read_model(str(floats.model))
    made = nncf.quantize(
        model,
        nncf.Dataset(list(calibrate), tensor),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibrate),
        ignored_scope=nncf.IgnoredScope(patterns=[_head(model)]),
    )
    ov.save_model(made, folder / export.FILES[0], compress_to_fp16=False)
    small = Export(folder / export.FILES[0], floats.network)
    reached = judge(_results(engine, measure), _results(OpenVINOEngine(small), measure))
    return {**floats.network.manifest(), "int8": reached}


def _results(engine: Any, paths: Sequence[Path]) -> list[Result]:
    return [engine.predict([_small(engine, path)], LOWEST, IOU)[0] for path in paths]


def _small(engine: Any, path: Path) -> Any:
    """An image made ready, as if it had no more pixels than the network gets: masks of more would
    take long and say the same."""
    image = _image(path)
    height, width = image.shape[:2]
    ratio = min(engine.imgsz / max(width, height), 1)
    return engine.prepare(
        image, None, (max(round(width * ratio), 1), max(round(height * ratio), 1))
    )


def _head(model: Any) -> str:
    """A pattern of the names in the network's last part. What it computes are pixels and scores,
    which int8 is too coarse for."""
    numbers = [
        int(found[1])
        for operation in model.get_ops()
        if (found := re.match(r"__module\.model\.(\d+)[./]", operation.get_friendly_name()))
    ]
    if not numbers:
        raise ExportError("the float export names no layers of a YOLO network")
    return rf"__module\.model\.{max(numbers)}[./].*"


def _decode(path: Path) -> Image | None:
    try:
        return decode.decode(path.read_bytes(), name=str(path))
    except (OSError, limits.MediaError):
        return None


def _image(path: Path) -> Image:
    return decode.decode(path.read_bytes(), name=str(path))


def _digest(paths: Sequence[Path]) -> str:
    """Changes when other images are chosen, or one of them does."""

    def lines() -> Iterator[str]:
        for path in sorted(paths):
            found = path.stat()
            yield f"{path} {found.st_size} {found.st_mtime_ns}\n"

    return hashlib.sha256("".join(lines()).encode()).hexdigest()


def main(arguments: list[str]) -> int:
    _, sha256, cache, imgsz, images = arguments
    os.nice(10)  # the model answers meanwhile
    return export.report(lambda: make(Path(cache), sha256, int(imgsz) or None, Path(images)))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
