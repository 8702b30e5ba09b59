"""``ls-yolo preview``: predictions on a sample of a project, on one sheet."""

from __future__ import annotations

import base64
import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ls_yolo import settings
from ls_yolo.cli.common import EX_FAILED, ToolError, app, fail, say
from ls_yolo.cli.labels import project_of_studio

MOST = 200
"""Tasks on a sheet at most."""
SIDE = 640
"""The longer side of a picture at most, in pixels."""
CELL, COLUMNS, LINE = 320, 4, 24
"""On the PNG: both sides of a cell, the cells in a row, and the height of a caption, in pixels."""


@dataclass(frozen=True)
class Shown:
    """A task on the sheet. ``pictures``: JPEGs of its images, with what is predicted drawn on them.
    ``labels``: how many regions each label has. ``error``: why there is no prediction, if so."""

    task: int
    score: float | None
    labels: Mapping[str, int]
    pictures: Sequence[bytes] = ()
    error: str = ""

    @property
    def caption(self) -> str:
        if self.error:
            return f"task {self.task}: {self.error}"
        found = ", ".join(f"{count} {label}" for label, count in self.labels.items())
        score = "" if self.score is None or not found else f" ({self.score:.2f})"
        return f"task {self.task}: {found or 'nothing'}{score}"


@dataclass
class _Pictures:
    """Keeps pictures by task; see `debug_plot.Saver`."""

    by_task: dict[object, list[bytes]] = field(default_factory=dict)

    def save(self, task: object, image: Any, regions: Sequence[Mapping[str, Any]]) -> None:
        from ls_yolo.serving import debug_plot

        made = debug_plot.picture(image, regions, SIDE)
        self.by_task.setdefault(task, []).append(made)


@app.command("preview", help="predictions on a sample of a project, as one sheet to look at")
def preview(
    project: Annotated[int, typer.Option(metavar="ID", help="a project's number in Label Studio")],
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

    title, config, names = project_of_studio(project)
    values = settings.read("backend")
    try:
        shown, version, unmapped = _predicted(_sample(project, tasks), config, names, values)
    except RequestError as error:
        raise ToolError(f"{title}: {error}") from None
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "preview.html").write_text(page(title, version, shown, unmapped))
        (output / "preview.png").write_bytes(sheet(shown))
    except OSError as error:
        raise ToolError(f"--output {output}: cannot be written: {error.strerror}") from None
    for one in shown:
        say(one.caption)
    say(f"{output / 'preview.html'} and {output / 'preview.png'}: {len(shown)} tasks of {title}")
    if all(one.error for one in shown):
        return fail("no task could be predicted; the lines above say why", EX_FAILED)
    return 0


def spread(count: int, most: int) -> list[int]:
    """``most`` places at most from 1 to ``count``, as far from each other as there is room."""
    number = min(count, most)
    return [1 + place * count // number for place in range(number)]


def _sample(project: int, most: int) -> list[dict[str, Any]]:
    from ls_yolo.labelstudio.client import Studio, reason

    values = settings.read("setup")
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    try:
        api: Any = studio.client
        count = int(api.projects.get(project).task_number or 0)
        found = [
            task.model_dump()
            for place in spread(count, most)
            for task in api.tasks.list(project=project, page=place, page_size=1, fields="all").items
        ]
    except Exception as error:  # the SDK's errors and httpx's
        raise ToolError(
            f"project {project}: unavailable from {studio.url}: {reason(error)}"
        ) from None
    if not found:
        raise ToolError(f"project {project}: found no task, expected at least one")
    return found


def _predicted(
    tasks: Sequence[Mapping[str, Any]],
    config: str,
    names: Sequence[str],
    values: Mapping[str, Any],
) -> tuple[list[Shown], str, Mapping[str, Mapping[str, str]]]:
    from ls_yolo.labelstudio.client import Studio
    from ls_yolo.serving import debug_plot
    from ls_yolo.serving.predictor import Predictor
    from ls_yolo.serving.reading import ImageReader
    from ls_yolo.serving.registry import Registry

    pictures = _Pictures()
    reader = ImageReader.read(values, Studio.read(values))
    predictor = Predictor(Registry.read(values, command=True), reader, pictures)
    plan = predictor.plan(config, names, ())
    answers = predictor.predict(tasks, plan)
    shown = []
    for task, answer in zip(tasks, answers, strict=True):
        rows = [row for region in answer["result"] if (row := debug_plot.row(region))]
        shown.append(
            Shown(
                task["id"],
                answer["score"],
                Counter(row.label for row in rows),
                pictures.by_task.get(task["id"], ()),
                answer.get("error", ""),
            )
        )
    return shown, plan.version, plan.unmapped


def page(
    title: str,
    version: str,
    shown: Sequence[Shown],
    unmapped: Mapping[str, Mapping[str, str]],
) -> str:
    """The sheet as HTML, in one file."""
    total: Counter[str] = Counter()
    for one in shown:
        total.update(one.labels)
    counts = "".join(
        f"<tr><td>{html.escape(label)}<td>{count}" for label, count in total.most_common()
    )
    faults = "".join(
        f"<li>{html.escape(f'label {label!r} of {control!r}: {why}')}"
        for control, reasons in unmapped.items()
        for label, why in reasons.items()
    )
    figures = "".join(
        "<figure>"
        + "".join(
            f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}" alt="">'
            for data in one.pictures
        )
        + f"<figcaption>{html.escape(one.caption)}</figcaption></figure>"
        for one in shown
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 16px/1.4 sans-serif; margin: 2em }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20em, 1fr)); gap: 1em }}
figure {{ margin: 0 }} img {{ max-width: 100% }} td {{ padding-right: 1em }}
</style>
<h1>{html.escape(title)}</h1><p>{html.escape(version)}, {len(shown)} tasks
<table>{counts}</table><ul>{faults}</ul><main>{figures}</main></html>
"""


def sheet(shown: Sequence[Shown]) -> bytes:
    """The sheet as a PNG, a cell a picture, row by row."""
    import cv2
    import numpy as np

    cells = [(one, data) for one in shown for data in one.pictures or (b"",)]
    rows = math.ceil(len(cells) / COLUMNS)
    canvas = np.full((rows * (CELL + LINE), COLUMNS * CELL, 3), 255, np.uint8)
    for number, (one, data) in enumerate(cells):
        top, left = number // COLUMNS * (CELL + LINE), number % COLUMNS * CELL
        if data:
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            factor = (CELL - 8) / max(picture.shape[:2])
            size = [max(round(side * factor), 1) for side in picture.shape[1::-1]]
            small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            canvas[top : top + size[1], left : left + size[0]] = small
        # OpenCV draws no other letters than these.
        text = one.caption.encode("ascii", "replace").decode()[: CELL // 7]
        place = left, top + CELL + LINE // 2
        cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    good, encoded = cv2.imencode(".png", canvas)
    assert good
    return bytes(encoded.tobytes())
