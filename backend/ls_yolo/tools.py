"""What ``ls-yolo predict``, ``models`` and ``labels`` do."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ls_yolo import config, selection, settings, weights
from ls_yolo.config import ConfigError
from ls_yolo.entries import Entry, Source
from ls_yolo.selection import SelectionError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""The files of a folder that are images."""
THREADS = 4
"""Images that are read and decoded at a time."""
AHEAD = 16
"""Images that are decoded and not yet printed: they are in memory."""
ASK_TIMEOUT = 5
"""How long the backend may take to say what it has, in seconds."""
MOST = 12
"""How many names are listed before "and N more"."""


class ToolError(RuntimeError):
    """A command cannot be done; the message says what was found, expected, and what to do."""


def add_commands(commands: Any) -> None:
    """Adds the parsers of the commands to the subparsers of ``ls-yolo``."""
    command = commands.add_parser(
        "predict", help="the boxes of images, as JSON, a line each; as pictures too"
    )
    command.add_argument("paths", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER")
    command.add_argument("--model", default="", help="a name of models.yaml; else the default")
    command.add_argument(
        "--conf", type=_score, metavar="0..1", help="lowest score; else that of the model"
    )
    command.add_argument("--save", type=Path, metavar="DIR", help="draw the boxes, and save there")
    command.set_defaults(run=predict)

    command = commands.add_parser(
        "models", help="the models: versions, classes, what runs them, memory"
    )
    command.add_argument("--json", action="store_true", help="everything, as JSON")
    command.set_defaults(run=models)

    command = commands.add_parser(
        "labels", help="how the labels of a project map to the classes of its models"
    )
    command.add_argument(
        "--project",
        required=True,
        metavar="FILE_OR_ID",
        help="a file or folder of projects, - for standard input, or a number in Label Studio",
    )
    command.add_argument("--json", action="store_true", help="everything, as JSON")
    command.set_defaults(run=show_labels)


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
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
            if not found:
                raise ToolError(f"{path}: found no image, expected files {', '.join(IMAGES)}")
            yield from found
        else:
            yield path


def _load(values: Mapping[str, Any], name: str) -> Any:
    """The model called ``name``, loaded; no other is."""
    from ls_yolo import engines
    from ls_yolo.registry import ModelUnavailable, Options, Registry, UnknownModel

    weights.safe()
    folder = Path(values["MODEL_DIR"])
    # Exports that the backend has made are used where they can be kept.
    cache = folder if os.access(folder, os.W_OK) else None
    try:
        registry = Registry(
            _source(values),
            lambda entry: engines.load(
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
    except (UnknownModel, ModelUnavailable, engines.EngineError) as error:
        raise ToolError(str(error)) from None


def _predict(path: Path, model: Any, conf: float | None) -> tuple[dict[str, Any], Any]:
    from ls_yolo import media

    try:
        image = media.decode(path.read_bytes())
    except (OSError, media.MediaError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        return {"image": str(path), "error": str(why)}, None
    entry = model.entry
    prepared = model.owner.prepare(image, entry.imgsz)
    lowest = entry.conf if conf is None else conf
    try:
        boxes = model.owner.submit(prepared, lowest, entry.iou).result()
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
    from ls_yolo import plot

    data = plot.drawn(image, [(row["label"], row["score"], row["box"]) for row in boxes])
    try:
        target.write_bytes(data)
    except OSError as error:
        raise ToolError(f"{target}: cannot be written: {error.strerror}") from None
    return str(target)


# ls-yolo models


def models(options: argparse.Namespace) -> int:
    """Prints the models of the backend that runs, else those of models.yaml; 1 if one is faulty."""
    where, rows = known()
    if options.json:
        print(json.dumps({"source": where, "models": rows}, indent=2, ensure_ascii=False))
    else:
        print(f"from {where}")
        print(
            _table(
                ("model", "version", "state", "classes", "engine", "memory"),
                [
                    (
                        row["name"],
                        row.get("version") or "-",
                        row.get("state") or "-",
                        _some(row["classes"], 3) if row.get("classes") else "-",
                        row.get("engine") or "-",
                        f"{row['memory_mb']} MB" if row.get("memory_mb") else "-",
                    )
                    for row in rows
                ],
            )
        )
        for row in rows:
            if row.get("error"):
                print(f"{row['name']}: {row['error']}", file=sys.stderr)
    return 1 if any(row.get("error") for row in rows) else 0


def known() -> tuple[str, list[dict[str, Any]]]:
    """Where the models are known from, and a row for each: ``name``, ``version``, ``state``,
    ``error``, and ``classes``, ``engine``, ``memory_mb`` as far as known.

    Raises:
        ToolError: the backend refuses the password.
        ConfigError: no backend answers, and models.yaml cannot be used.
    """
    import httpx

    values = settings.read("setup")
    url = values["BACKEND_URL"].rstrip("/")
    if "BACKEND_URL" not in os.environ and "PORT" in os.environ:
        url = f"http://127.0.0.1:{os.environ['PORT']}"  # inside the backend's own container
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    try:
        # Without a proxy: the backend is near.
        with httpx.Client(trust_env=False, timeout=ASK_TIMEOUT) as client:
            answer = client.get(f"{url}/readyz", auth=(user, password) if password else None)
        rows = answer.json().get("models")
        if isinstance(rows, list):
            return url, rows
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        pass
    else:
        raise ToolError(
            f"{url} does not say what its models are; check BASIC_AUTH_USER and BASIC_AUTH_PASS"
        )
    mine = settings.read("backend")
    return mine["MODELS_CONFIG"], [_row(spec) for spec in _source(mine).specs().values()]


def _source(values: Mapping[str, Any]) -> Source:
    return Source(
        Path(values["MODELS_CONFIG"]), Path(values["MODEL_ROOT"]), values["MODEL_SCORE_THRESHOLD"]
    )


def _row(spec: Any) -> dict[str, Any]:
    """A model as its files tell, without loading it."""
    row = {"name": spec.name, "version": "", "state": "", "error": ""}
    try:
        entry: Entry = spec.entry()
        names = weights.inspect(entry.weights).names
    except (ConfigError, weights.WeightsError) as error:
        return {**row, "state": "failed", "error": str(error)}
    classes = list({**names, **entry.names}.values())
    return {**row, "version": entry.version, "state": "not running", "classes": classes}


# ls-yolo labels


@dataclass(frozen=True)
class Mapped:
    """How a control's labels map. ``mapped``: label to classes; ``unmapped``: label to the reason;
    ``unlabelled``: classes that no label stands for, whose boxes are left out."""

    control: str
    tag: str
    models: tuple[str, ...]
    mapped: Mapping[str, Sequence[str]]
    unmapped: Mapping[str, str]
    unlabelled: Sequence[str]


def show_labels(options: argparse.Namespace) -> int:
    """Prints how labels map; 1 if in a project no label maps to any class."""
    from ls_yolo.labels import LabelConfigError

    wanted = list(_projects(options.project))
    _, rows = known()
    found, empty = [], []
    for title, text, names in wanted:
        try:
            mappings = mapping(text, names, rows)
        except (LabelConfigError, SelectionError) as error:
            raise ToolError(f"{title}: {error}") from None
        found.append({"project": title, "controls": [asdict(item) for item in mappings]})
        if not any(item.mapped for item in mappings):
            empty.append(title)
        if not options.json:
            print(title)
            for item in mappings:
                print(_describe(item))
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    for title in empty:
        print(
            f"error: {title}: no label maps to a class, so nothing would be predicted; rename one "
            "or the other, or give a label predicted_values",
            file=sys.stderr,
        )
    return 1 if empty else 0


def mapping(text: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Mapped]:
    """How the labels of a labelling configuration map to the classes of the models ``names``, of
    which ``rows`` tells (see `known`); no name: the default model.

    Raises:
        LabelConfigError: the configuration cannot be read, or has no control that is drawn for.
        ToolError: there is no such model, or its classes are not known.
    """
    # Label Studio's SDK takes a second to import; --help and the other commands do without.
    from ls_yolo import labels
    from ls_yolo.controls import CONTROLS

    controls = labels.parse(text)
    drawn = [c for c in controls if c.tag in CONTROLS and not c.skipped]
    if not drawn:
        tags = ", ".join(sorted({control.tag for control in controls})) or "none"
        raise labels.LabelConfigError(
            f"controls on an image: found {tags}, expected one of {', '.join(CONTROLS)}"
        )
    default = settings.read("backend")["DEFAULT_MODEL"] or (rows[0]["name"] if rows else "")
    found = []
    for control in drawn:
        path = (control.model_path,) if control.model_path else ()
        chosen = path or selection.choose(names, (), default)
        classes = [name for model in chosen for name in _classes(model, rows)]
        match = labels.match(control, classes)
        mapped: dict[str, list[str]] = {}
        for name, label in match.labels.items():
            mapped.setdefault(label, []).append(name)
        rest = [name for name in dict.fromkeys(classes) if name not in match.labels]
        found.append(Mapped(control.from_name, control.tag, chosen, mapped, match.unmapped, rest))
    return found


def _classes(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    for row in rows:
        if row["name"] == name:
            if row.get("classes"):
                return list(row["classes"])
            raise ToolError(
                f"model {name!r} has said no classes yet: it is {row.get('state') or 'unknown'}"
                + (f" ({row['error']})" if row.get("error") else "")
                + "; open a task of the project once, then ask again"
            )
    known_names = [str(row["name"]) for row in rows]
    raise ToolError(
        f"no model is called {name!r}{config.nearest(name, known_names)}; "
        f"there is: {', '.join(known_names) or 'none'}"
    )


def _projects(where: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Title, labelling configuration and models of each project."""
    if where.isascii() and where.isdigit() and not Path(where).exists():
        yield _project_of_studio(int(where))
    else:
        from ls_yolo import projects

        path = Path("/dev/stdin" if where == "-" else where)
        for project in projects.read(path):
            yield project.title, project.label_config, project.models


def _project_of_studio(number: int) -> tuple[str, str, tuple[str, ...]]:
    from ls_yolo.studio import Studio, StudioError, reason

    values = settings.read("setup")
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    try:
        api: Any = studio.client
        project = api.projects.get(number)
        rows = studio.connections(number)
    except Exception as error:  # the SDK's errors and httpx's
        if isinstance(error, StudioError):
            raise ToolError(str(error)) from None
        raise ToolError(
            f"project {number}: not to be had from {studio.url}: {reason(error)}"
        ) from None
    # Label Studio asks the first connection only.
    first = min(rows, key=lambda row: int(row["id"]), default={})
    _, chosen, names = str(first.get("url") or "").partition("/m/")
    if chosen:
        return project.title, project.label_config, selection.from_url(names.strip("/"))
    extra = selection.from_extra_params(first.get("extra_params"))
    return project.title, project.label_config, extra


def _describe(item: Mapped) -> str:
    width = max(map(len, [*item.mapped, *item.unmapped]), default=0)
    lines = [f"  {item.control} ({item.tag}), {'+'.join(item.models)}"]
    for label, classes in item.mapped.items():
        lines.append(f"    {label:{width}}  <- {_some(classes)}")
    for label, why in item.unmapped.items():
        lines.append(f"    {label:{width}}  !! {why}")
    if item.unlabelled:
        lines.append(f"    classes without a label, not drawn: {_some(item.unlabelled)}")
    return "\n".join(lines)


def _some(names: Sequence[str], most: int = MOST) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
