"""``ls-yolo schema``: the JSON Schema of a file that people write."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from ls_yolo.cli.common import app, say


class Of(StrEnum):
    """The files that have a schema."""

    PROJECTS = "projects"
    MODELS = "models"


@app.command("schema", help="the JSON Schema of projects/*.yaml, or of models.yaml")
def print_schema(
    of: Annotated[Of, typer.Argument(help="of which file")] = Of.PROJECTS,
) -> int:
    """Prints the schema, for editors and checkers."""
    from ls_yolo import config

    say(json.dumps(config.schema(of.value), indent=2, ensure_ascii=False))
    return 0
