"""``ls-yolo preview``: predictions on a sample of a project, on one sheet."""

from __future__ import annotations

import base64
import html
import math
import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ls_yolo import files, settings
from ls_yolo.cli.common import EX_FAILED, ToolError, app, fail, say
from ls_yolo.cli.labels import StudioProject, project_of_studio

MOST = 200
"""Tasks on a sheet at most."""
SIDE = 480
"""The longer side of a picture at most, in pixels."""
CELL, GAP, COLUMNS = 400, 12, 4
"""On the PNG: the width of a cell and both sides of its picture at most, what is free beside and
below, in pixels; the cells in a row."""
LINE, LETTER = 20, 9
"""Of a line of text on the PNG: its height, and the width of a letter, in pixels."""
WHOLE = frozenset({"choices", "taxonomy", "number", "rating"})
"""Regions that say something of the task as a whole."""


@dataclass(frozen=True)
class Shown:
    """A task on the sheet.

    labels: how many regions each label has.
    pictures: JPEGs of its images, with what is predicted drawn on them, and of some frames of its
        videos; each after its name, which may be empty.
    error: why there is no prediction, if so.
    said: what is said of the task as a whole.
    """

    task: int
    score: float | None
    labels: Mapping[str, int]
    pictures: Sequence[tuple[str, bytes]] = ()
    error: str = ""
    said: Sequence[str] = ()

    def caption(self, name: str = "") -> str:
        """What is said of the task, or of its picture called ``name``."""
        name = f"task {self.task}, {name}" if name else f"task {self.task}"
        if self.error:
            return f"{name}: {self.error}"
        found = ", ".join([*(f"{count} {name}" for name, count in self.labels.items()), *self.said])
        score = "" if self.score is None or not found else f" ({self.score:.2f})"
        return f"{name}: {found or 'nothing'}{score}"


@dataclass(frozen=True)
class Sheet:
    """What a project's models say of some of its tasks.

    ``version``: that of the models. ``faults``: what of the labeling config is not drawn, a line
    each."""

    title: str
    version: str
    shown: Sequence[Shown]
    faults: Sequence[str] = ()

    @property
    def counts(self) -> Sequence[tuple[str, int]]:
        """Each label and what is said of tasks as a whole, with how often; most often first."""
        total: Counter[str] = Counter()
        for one in self.shown:
            total.update(one.labels)
            total.update(one.said)
        return total.most_common()


@dataclass
class _Pictures:
    """Keeps pictures by task; see `debug_plot.Saver`."""

    by_task: dict[object, list[tuple[str, bytes]]] = field(default_factory=dict)

    def save(self, task: object, image: Any, regions: Sequence[Mapping[str, Any]]) -> None:
        from ls_yolo.serving import debug_plot

        made = debug_plot.picture(image, debug_plot.rows(regions), SIDE)
        self.by_task.setdefault(task, []).append(("", made))


@app.command("preview", help="predictions on a sample of a project, as one sheet to look at")
def preview(
    project: Annotated[
        int, typer.Option(metavar="ID", min=1, help="a project's number in Label Studio")
    ],
    tasks: Annotated[
        int, typer.Option(min=1, max=MOST, help="how many tasks, spread over the project")
    ] = 12,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="gets preview.html and preview.png")
    ] = Path(),
) -> int:
    """Predicts a sample of a project's tasks, stores nothing in Label Studio, and writes what is
    predicted as a page and as an image; 1 if no task could be predicted."""
    from ls_yolo.errors import RequestError

    values = settings.read("backend")
    _prepare(output)
    found = project_of_studio(project)
    try:
        made = _predicted(found, _sample(found, tasks), values)
    except RequestError as error:
        raise ToolError(f"{found.title}: {error}") from None
    targets = output / "preview.html", output / "preview.png"
    try:
        files.write(targets[0], page(made))
        files.write(targets[1], png(made))
    except OSError as error:
        raise ToolError(f"--output {output}: cannot be written: {error.strerror}") from None
    for one in made.shown:
        say(one.caption())
    say(f"{targets[0]} and {targets[1]}: {len(made.shown)} tasks of {found.title}")
    if all(one.error for one in made.shown):
        return fail("no task could be predicted; the lines above say why", EX_FAILED)
    return 0


def _prepare(output: Path) -> None:
    """Makes the folder, before anything that takes long.

    Raises:
        ToolError: it cannot be written.
    """
    try:
        if output.exists() and not output.is_dir():
            raise ToolError(f"--output {output}: found a file, expected a folder")
        output.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(output, os.W_OK | os.X_OK) else "it is read-only, or not this user's"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise ToolError(
            f"--output {output}: cannot be written: {why}; name another folder, in the backend's "
            "container one below /data, for example /data/preview"
        )


def spread(count: int, most: int) -> list[int]:
    """``most`` places at most from 1 to ``count``, as far from each other as there is room."""
    number = min(count, most)
    return [1 + place * count // number for place in range(number)]


def _sample(project: StudioProject, most: int) -> list[dict[str, Any]]:
    from ls_yolo.labelstudio.client import reason

    try:
        api: Any = project.studio.client
        found = [
            task.model_dump()
            for place in spread(project.tasks, most)
            for task in api.tasks.list(
                project=project.number, page=place, page_size=1, fields="all"
            ).items
        ]
    except Exception as error:  # the SDK's errors and httpx's
        raise ToolError(
            f"tasks of project {project.number}: unavailable from {project.studio.url}: "
            f"{reason(error)}"
        ) from None
    if not found:
        raise ToolError(f"{project.title}: found no task, expected at least one; import some first")
    return found


def _predicted(
    project: StudioProject, tasks: Sequence[Mapping[str, Any]], values: Mapping[str, Any]
) -> Sheet:
    from ls_yolo.images.limits import MediaError
    from ls_yolo.labelstudio.client import Studio, StudioError
    from ls_yolo.serving import debug_plot, stills
    from ls_yolo.serving.predictor import Predictor
    from ls_yolo.serving.reading import ImageReader
    from ls_yolo.serving.registry import Registry

    pictures = _Pictures()
    reader = ImageReader.read(values, Studio.read(values))
    registry = Registry.read(values, command=True)
    # Nobody waits at a page: a video may take as long as it takes.
    predictor = Predictor(registry, reader, pictures, video_seconds=math.inf)
    plan = predictor.plan(project.config, project.models, ())
    say(f"{project.title}: {len(tasks)} of {project.tasks} tasks with {plan.version}")
    shown = []
    for task, answer in zip(tasks, predictor.predict(tasks, plan), strict=True):
        regions, error = answer["result"], answer.get("error", "")
        kept = pictures.by_task.get(task["id"], [])
        try:
            if not error:
                kept += stills.of_task(task, plan.bindings, reader, regions, SIDE)
        except (MediaError, StudioError) as gone:  # after it was predicted
            error = str(gone)
        parts = [region for region in regions if region["type"] not in WHOLE]
        whole = [region for region in regions if region["type"] in WHOLE]
        labels = Counter(row.label for row in debug_plot.rows(parts))
        said = [row.label for row in debug_plot.rows(whole)]
        shown.append(Shown(task["id"], answer["score"], labels, kept, error, said))
    return Sheet(project.title, plan.version, shown, plan.faults)


def page(sheet: Sheet) -> str:
    """The sheet as HTML, in one file."""
    counts = "".join(f"<tr><td>{html.escape(name)}<td>{count}" for name, count in sheet.counts)
    faults = "".join(f"<li>{html.escape(fault)}" for fault in sheet.faults)
    figures = "".join(
        f"<figure{' class=error' if one.error else ''}>"
        + "".join(
            f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}" alt="">'
            f"{html.escape(name)}"
            for name, data in one.pictures
        )
        + f"<figcaption>{html.escape(one.caption())}</figcaption></figure>"
        for one in sheet.shown
    )
    title = html.escape(sheet.title)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 16px/1.4 sans-serif; margin: 2em }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(22em, 1fr)); gap: 1.5em }}
figure {{ margin: 0 }} img {{ width: 100%; margin-bottom: 4px }} td {{ padding-right: 1em }}
.error {{ color: #a00000 }}
</style>
<h1>{title}</h1><p>{html.escape(sheet.version)}, {len(sheet.shown)} tasks
<table>{counts}</table><ul class="error">{faults}</ul><main>{figures}</main></html>
"""


def png(sheet: Sheet) -> bytes:
    """The sheet as a PNG: what it is of, then a cell a picture, row by row."""
    import cv2
    import numpy as np

    cells = [
        (one.caption(name), data)
        for one in sheet.shown
        for name, data in one.pictures or (("", b""),)
    ]
    width = CELL * max(2, min(COLUMNS, len(cells)))
    counts = ", ".join(f"{count} {name}" for name, count in sheet.counts)
    head = [sheet.title, f"{sheet.version}, {len(sheet.shown)} tasks", counts, *sheet.faults]
    rows = [_written([part for line in head for part in _wrapped(line, width)], width)]
    for start in range(0, len(cells), COLUMNS):
        parts = [_cell(*cell) for cell in cells[start : start + COLUMNS]]
        row = np.full((max(map(len, parts)), width, 3), 255, np.uint8)
        for number, part in enumerate(parts):
            row[: len(part), number * CELL : (number + 1) * CELL] = part
        rows.append(row)
    good, encoded = cv2.imencode(".png", np.concatenate(rows))
    assert good
    return bytes(encoded.tobytes())


def _cell(caption: str, data: bytes) -> Any:
    """A picture, if any, and its caption below; as wide as a cell."""
    import cv2
    import numpy as np

    text = _written(_wrapped(caption, CELL), CELL)
    if not data:
        return text
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    factor = (CELL - GAP) / max(picture.shape[:2])
    size = [max(round(side * factor), 1) for side in picture.shape[1::-1]]
    made = np.full((size[1], CELL, 3), 255, np.uint8)
    made[:, : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.concatenate([made, text])


def _wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines that many pixels wide."""
    return textwrap.wrap(text, (width - GAP) // LETTER)


def _written(lines: Sequence[str], width: int) -> Any:
    """Lines of text in black on white, so many pixels wide, with a gap below."""
    import cv2
    import numpy as np

    made = np.full((LINE * len(lines) + GAP, width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        # OpenCV draws no other letters than these.
        text = line.encode("ascii", "replace").decode()
        place = 2, LINE * (number + 1) - 5
        cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return made
