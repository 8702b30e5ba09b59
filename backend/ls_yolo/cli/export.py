"""``ls-yolo export``: a project of Label Studio as a project file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ls_yolo import settings
from ls_yolo.cli.common import ToolError, app


@app.command("export", help="a project of Label Studio as a project file")
def export(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="its title, or its number")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="where to; unless set: standard output"
        ),
    ] = None,
) -> int:
    """Writes the project's YAML; returns the exit code."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    from ls_yolo import files
    from ls_yolo.labelstudio.client import Studio, reason
    from ls_yolo.labelstudio.lookup import find_project
    from ls_yolo.projects.export import export as write

    values = settings.read("setup")
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    root = Path(values["LOCAL_FILES_DOCUMENT_ROOT"])
    try:
        found = find_project(studio, project).model_dump()
        text = write(studio, found, root, values["BACKEND_URL"])
    except (ApiError, httpx.HTTPError) as error:
        raise ToolError(f"project {project!r}: Label Studio: {reason(error)}") from None
    if output:
        files.write(output, text)
    else:
        sys.stdout.write(text)
    return 0
