"""``ls-yolo weights``: into weights files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ls_yolo.cli.common import ToolError, app, say

group = typer.Typer(help="look into weights files", rich_markup_mode=None)
app.add_typer(group, name="weights")


def parse_names(words: Sequence[str]) -> dict[int, str]:
    """The names that ``0=person`` and the like stand for.

    Raises:
        WeightsError: a word is not of that form.
    """
    from ls_yolo.models.weights import WeightsError

    found = {}
    for word in words:
        index, _, name = word.partition("=")
        if not (index.isascii() and index.isdigit() and name.strip()):
            raise WeightsError(f"found {word!r}, expected a class index and a name: 0=person")
        found[int(index)] = name.strip()
    return found


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ToolError(f"{file}: cannot be read: {error.strerror}") from None


@group.command("inspect", help="what a file holds; runs no code of it")
def show(file: Path, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Prints what a weights file holds."""
    from ls_yolo.models.weights import inspect

    with _reading(file):
        found = inspect(file)
    say(json.dumps(asdict(found), indent=2) if as_json else found.text())


@group.command("rename", help="a copy with other class names")
def rename(
    file: Path,
    names: Annotated[list[str], typer.Argument(metavar="INDEX=NAME")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE")],
) -> None:
    """Writes a copy of a weights file, and prints its hash."""
    from ls_yolo.files import hash_file
    from ls_yolo.models import weights

    with _reading(file):
        weights.rename(file, parse_names(names), output)
        say(f"{output}: {hash_file(output)}")
