"""``ls-yolo predict``: what a model says of images, without Label Studio."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ls_yolo import settings
from ls_yolo.cli.common import EX_FAILED, ToolError, app, fail
from ls_yolo.images.formats import SUFFIXES

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
        raise typer.BadParameter(f"found {text!r}, expected a number from 0 to 1")
    return number


@app.command("predict", help="what a model says of images, as JSON, a line each; as pictures too")
def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="IMAGE_OR_FOLDER")],
    name: Annotated[
        str, typer.Option("--model", help="a name of models.yaml; else the default")
    ] = "",
    conf: Annotated[
        float | None,
        typer.Option(parser=_score, metavar="0..1", help="lowest score; else that of the model"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="draw what is found, and save there")
    ] = None,
) -> int:
    """Prints a JSON object for each image, in order; 1 if one could not be predicted.

    ``{"image", "width", "height", "model", "boxes": [{"label", "score", "box"}]}``; width, height
    and box (left, top, right, bottom) are in pixels of the upright image, score is 0 to 1. A box
    has ``polygons`` too where the model segments, ``corners`` and ``angle`` (degrees, clockwise)
    where it turns boxes, ``keypoints`` (x, y, score) where it finds poses. One that classifies has
    ``classes`` for ``boxes``: ``[{"label", "score"}]``. One that failed: ``{"image", "error"}``.
    """
    from rich.console import Console
    from rich.progress import track

    files = list(_files(paths))
    targets = _targets(save or Path(), files)
    values = settings.read("backend")
    if save:
        try:
            save.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError(f"--save {save}: cannot be made: {error.strerror}") from None
        if lost := {path.resolve() for path in files} & {path.resolve() for path in targets}:
            raise ToolError(
                f"--save {save}: would write over {min(lost)}, an image to predict; name "
                "another folder"
            )
    model = _load(values, name)
    failed = 0
    # Where the lines themselves go to the terminal, they are the progress.
    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    console = Console(stderr=True)
    with ThreadPoolExecutor(THREADS, "decode") as pool:
        work = (pool.submit(partial(_predict, path, model, conf)) for path in files)
        found = zip(targets, _ordered(work), strict=True)
        for target, (row, image) in track(
            found, "", len(files), console=console, disable=not shown, transient=True
        ):
            failed += "error" in row
            if save and image is not None:
                row["saved"] = _save(image, row, target)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    if failed:
        return fail(f"{failed} of {len(files)} images could not be predicted", EX_FAILED)
    return 0


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
    from ls_yolo.serving.registry import ModelUnavailable, NoPredictions, Registry, UnknownModel

    try:
        registry = Registry.read(values, command=True)
        return registry.by_path(name or registry.default)
    except (UnknownModel, NoPredictions, ModelUnavailable, base.EngineError) as error:
        raise ToolError(str(error)) from None


def _predict(path: Path, model: Any, conf: float | None) -> tuple[dict[str, Any], Any]:
    from ls_yolo.images import decode, limits
    from ls_yolo.serving import described

    try:
        image = decode.decode(path.read_bytes(), name=str(path))
    except (OSError, limits.MediaError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return {"image": str(path), "error": str(why)}, None
    entry = model.entry
    prepared = model.batcher.prepare(image, entry.imgsz)
    lowest = entry.conf if conf is None else conf
    try:
        result = model.batcher.submit(prepared, lowest, entry.iou).result()
        found = described.describe(result, model.names, lowest)
    except Exception as error:  # an engine may raise anything
        return {"image": str(path), "error": f"{type(error).__name__}: {error}"}, None
    height, width = image.shape[:2]
    row = {"image": str(path), "width": width, "height": height, "model": model.version}
    return {**row, **found}, image


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


def _save(image: Any, found: Mapping[str, Any], target: Path) -> str:
    from ls_yolo.serving import debug_plot

    data = debug_plot.drawn(
        image, [_drawing(row) for row in found.get("boxes", found.get("classes"))]
    )
    try:
        target.write_bytes(data)
    except OSError as error:
        raise ToolError(f"{target}: cannot be written: {error.strerror}") from None
    return str(target)


def _drawing(row: Mapping[str, Any]) -> Any:
    from ls_yolo.serving.debug_plot import Row

    outlines = [row["corners"]] if "corners" in row else row.get("polygons")
    if not outlines and "box" in row:
        left, top, right, bottom = row["box"]
        outlines = [[(left, top), (right, top), (right, bottom), (left, bottom)]]
    points = [point[:2] for point in row.get("keypoints", [])]
    return Row(row["label"], row["score"], outlines or (), points)
