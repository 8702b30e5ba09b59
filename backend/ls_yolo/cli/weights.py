"""``ls-yolo weights``: into weights files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ls_yolo.files import hash_file
from ls_yolo.models.weights import WeightsError, inspect, rename


def parse_names(words: Sequence[str]) -> dict[int, str]:
    """The names that ``0=person`` and the like stand for.

    Raises:
        WeightsError: a word is not of that form.
    """
    found = {}
    for word in words:
        index, _, name = word.partition("=")
        if not (index.isascii() and index.isdigit() and name.strip()):
            raise WeightsError(f"found {word!r}, expected a class index and a name: 0=person")
        found[int(index)] = name.strip()
    return found


def add_commands(commands: Any) -> None:
    """Adds ``weights`` to the subcommands of a command line."""
    group = commands.add_parser("weights", help="look into weights files")
    actions = group.add_subparsers(dest="action", required=True)
    action = actions.add_parser("inspect", help="what a file holds; runs no code of it")
    action.add_argument("file", type=Path)
    action.add_argument("--json", action="store_true")
    action = actions.add_parser("rename", help="a copy with other class names")
    action.add_argument("file", type=Path)
    action.add_argument("names", nargs="+", metavar="INDEX=NAME")
    action.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")


def run(options: argparse.Namespace) -> int:
    """Does what the command line asks for.

    Raises:
        WeightsError: it cannot be done.
    """
    try:
        if options.action == "inspect":
            found = inspect(options.file)
            print(json.dumps(asdict(found), indent=2) if options.json else found.text())
        else:
            rename(options.file, parse_names(options.names), options.output)
            print(f"{options.output}: {hash_file(options.output)}")
    except OSError as error:
        raise WeightsError(f"{options.file}: cannot be read: {error.strerror}") from None
    return 0
