"""``ls-yolo predict``: the boxes of images, without Label Studio."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ls_yolo import settings
from ls_yolo.cli.common import ToolError
from ls_yolo.cli.models import _source
from ls_yolo.images.formats import SUFFIXES
from ls_yolo.models import weights

THREADS = 4
"""Images that are read and decoded at a time."""
AHEAD = 16
"""Images that are decoded and not yet printed: they are in memory."""


def _score(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a number from 0 to 1")
    return number


# ls-yolo predict


def predict(options: argparse.Namespace) -> int:
    """Prints a JSON object for each image, in order; 1 if one could not be predicted.

    ``{"image", "width", "height", "model", "boxes": [{"label", "score", "box"}]}``; width, height
    and box (left, top, right, bottom) are in pixels of the upright image, score is 0 to 1. One that
    failed: ``{"image", "error"}``.
    """
    files = list(_files(options.paths))
    targets = _targets(options.save or Path(), files)
    values = settings.read("backend")
    if options.save:
        try:
            options.save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError(f"--save {options.save}: cannot be made: {error.strerror}") from None
        if lost := {path.resolve() for path in files} & {path.resolve() for path in targets}:
            raise ToolError(
                f"--save {options.save}: would write over {min(lost)}, an image to predict; name "
                "another folder"
            )
    model = _load(values, options.model)
    failed = 0
    with ThreadPoolExecutor(THREADS, "decode") as pool:
        work = (pool.submit(partial(_predict, path, model, options.conf)) for path in files)
        for number, (target, found) in enumerate(zip(targets, _ordered(work), strict=True), 1):
            row, image = found
            failed += "error" in row
            if options.save and image is not None:
                row["saved"] = _save(image, row["boxes"], target)
            print(json.dumps(row, ensure_ascii=False), flush=True)
            if sys.stderr.isatty() and not sys.stdout.isatty():
                print(f"\r{number} of {len(files)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and not sys.stdout.isatty():
        print(file=sys.stderr)
    if failed:
        print(f"error: {failed} of {len(files)} images could not be predicted", file=sys.stderr)
    return 1 if failed else 0


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise ToolError(f"{path}: found no image, expected files {', '.join(SUFFIXES)}")
            yield from found
        else:
            yield path


def _load(values: Mapping[str, Any], name: str) -> Any:
    """The model called ``name``, loaded; no other is."""
    from ls_yolo.engines import base
    from ls_yolo.engines import load as loader
    from ls_yolo.serving.registry import ModelUnavailable, Options, Registry, UnknownModel

    weights.safe()
    folder = Path(values["MODEL_DIR"])
    # Exports that the backend has made are used where they can be kept.
    cache = folder if os.access(folder, os.W_OK) else None
    try:
        registry = Registry(
            _source(values),
            lambda entry: loader.load_engine(
                entry.weights,
                values["DEVICE"],
                entry.sha256,
                cache,
                values["ENGINE"],
                entry.imgsz,
                values["PRECISION"],
                Path(values["LOCAL_FILES_DOCUMENT_ROOT"], values["CALIBRATION_IMAGES"]),
            ),
            values["DEFAULT_MODEL"],
            True,  # who may run this may read the files
            Options(lazy=True, poll=0),
        )
        return registry.by_path(name or registry.default)
    except (UnknownModel, ModelUnavailable, base.EngineError) as error:
        raise ToolError(str(error)) from None


def _predict(path: Path, model: Any, conf: float | None) -> tuple[dict[str, Any], Any]:
    from ls_yolo.images import decode, limits

    try:
        image = decode.decode(path.read_bytes(), name=str(path))
    except (OSError, limits.MediaError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return {"image": str(path), "error": str(why)}, None
    entry = model.entry
    prepared = model.batcher.prepare(image, entry.imgsz)
    lowest = entry.conf if conf is None else conf
    try:
        boxes = model.batcher.submit(prepared, lowest, entry.iou).result()
    except Exception as error:  # an engine may raise anything
        return {"image": str(path), "error": f"{type(error).__name__}: {error}"}, None
    rows = [
        {
            "label": model.names[index],
            "score": round(score, 4),
            "box": [round(edge, 1) for edge in box],
        }
        for box, score, index in zip(
            boxes.xyxy.tolist(), boxes.scores.tolist(), boxes.classes.tolist(), strict=True
        )
    ]
    height, width = image.shape[:2]
    row = {"image": str(path), "width": width, "height": height, "model": model.version}
    return {**row, "boxes": rows}, image


def _ordered(work: Iterator[Future[Any]]) -> Iterator[Any]:
    """The results in order, with not more than ``AHEAD`` images on the way."""
    waiting: deque[Future[Any]] = deque()
    for future in work:
        waiting.append(future)
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _targets(folder: Path, files: Iterable[Path]) -> list[Path]:
    """Where the picture of each goes; images of one name do not overwrite each other."""
    targets: dict[Path, None] = {}
    for path in files:
        target, number = folder / f"{path.stem}.jpg", 1
        while target in targets:
            number += 1
            target = target.with_name(f"{path.stem}-{number}.jpg")
        targets[target] = None
    return list(targets)


def _save(image: Any, boxes: Sequence[Mapping[str, Any]], target: Path) -> str:
    from ls_yolo.serving import debug_plot

    data = debug_plot.drawn(image, [(row["label"], row["score"], row["box"]) for row in boxes])
    try:
        target.write_bytes(data)
    except OSError as error:
        raise ToolError(f"{target}: cannot be written: {error.strerror}") from None
    return str(target)
