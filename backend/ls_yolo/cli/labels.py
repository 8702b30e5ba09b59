"""``ls-yolo labels``: how labels map to classes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ls_yolo import settings
from ls_yolo.cli.common import EX_FAILED, TokenRefused, ToolError, app, fail
from ls_yolo.cli.models import known
from ls_yolo.text import some


@app.command("labels", help="how the labels of a project map to the classes of its models")
def show_labels(
    project: Annotated[
        str,
        typer.Option(
            metavar="FILE_OR_ID",
            help="a file or folder of projects, - for standard input, or a number in Label Studio",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="everything, as JSON")] = False,
) -> int:
    """Prints how labels map; 1 if in a project no label maps to any class."""
    # Here, since --help and the other commands do without.
    from ls_yolo.labelstudio.label_config import LabelConfigError
    from ls_yolo.labelstudio.selection import SelectionError
    from ls_yolo.serving.mapping import MappingError, mapping

    wanted = list(_projects(project))
    _, rows = known()
    default = settings.read("backend")["DEFAULT_MODEL"]
    found, empty = [], []
    for title, text, names in wanted:
        try:
            mappings = mapping(text, names, rows, default)
        except (LabelConfigError, SelectionError, MappingError) as error:
            raise ToolError(f"{title}: {error}") from None
        found.append({"project": title, "controls": [asdict(item) for item in mappings]})
        if mappings and not any(item.mapped for item in mappings):
            empty.append(title)
        if not as_json:
            print(title)
            for item in mappings:
                print(_describe(item))
            if not mappings:
                print("  a SAM alone: it draws under any label, where people point")
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    for title in empty:
        fail(
            f"{title}: no label maps to a class, so nothing would be predicted; rename one "
            "or the other, or give a label predicted_values",
            EX_FAILED,
        )
    return EX_FAILED if empty else 0


def _projects(where: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Title, labeling config and models of each project."""
    if where.isascii() and where.isdigit() and not Path(where).exists():
        found = project_of_studio(int(where))
        yield found.title, found.config, found.models
    else:
        from ls_yolo.projects import config, labels
        from ls_yolo.projects.backend import ApplyError

        path = Path("/dev/stdin" if where == "-" else where)
        for project in config.read(path):
            text = project.label_config
            if project.labels:
                try:
                    text = labels.label_config(project.labels, project.models, known()[1])
                except ApplyError as error:
                    raise ToolError(f"{project.source}: {error}") from None
            yield project.title, text, project.models


@dataclass(frozen=True)
class StudioProject:
    """A project in Label Studio: its labeling config, the models that its connection names, and how
    many tasks it has. ``studio`` is where it was found."""

    number: int
    title: str
    config: str
    models: tuple[str, ...]
    tasks: int
    studio: Any


def project_of_studio(number: int) -> StudioProject:
    """The project that has this number in Label Studio.

    Raises:
        ToolError: Label Studio is not reached or does not have it.
        TokenRefused: it does not take the token.
    """
    from label_studio_sdk.core.api_error import ApiError

    from ls_yolo.labelstudio import selection
    from ls_yolo.labelstudio.client import Studio, StudioError, TokenError, reason
    from ls_yolo.projects.apply import check_token
    from ls_yolo.projects.backend import ApplyError

    values = settings.read("setup")
    if not values["LABEL_STUDIO_API_KEY"]:
        raise TokenRefused("LABEL_STUDIO_API_KEY: found nothing, expected a token of Label Studio")
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    try:
        check_token(studio)
        api: Any = studio.client
        project = api.projects.get(number)
        rows = studio.connections(number)
    except TokenError as error:
        raise TokenRefused(str(error)) from None
    except Exception as error:  # the SDK's errors and httpx's
        if isinstance(error, StudioError):
            raise ToolError(str(error)) from None
        if isinstance(error, ApiError) and error.status_code == 404:
            raise ToolError(
                f"project {number}: Label Studio has none of this number, or does not show it to "
                "the user of LABEL_STUDIO_API_KEY; the number is in the address of its page"
            ) from None
        why = str(error) if isinstance(error, ApplyError) else reason(error)
        raise ToolError(f"project {number}: unavailable from {studio.url}: {why}") from None
    models = selection.of_connections(rows)
    count = int(project.task_number or 0)
    return StudioProject(number, project.title, project.label_config, models, count, studio)


def _describe(item: Any) -> str:
    width = max(map(len, [*item.mapped, *item.unmapped]), default=0)
    lines = [f"  {item.control} ({item.tag}), {'+'.join(item.models)}"]
    for label, classes in item.mapped.items():
        lines.append(f"    {label:{width}}  <- {some(classes)}")
    for label, why in item.unmapped.items():
        lines.append(f"    {label:{width}}  !! {why}")
    if item.unlabelled:
        lines.append(f"    classes without a label, not drawn: {some(item.unlabelled)}")
    return "\n".join(lines)
