"""What the commands share: the application, messages, tables, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

EX_FAILED, EX_USAGE, EX_STOPPED = 1, 2, 130
EX_NOPERM, EX_CONFIG, EX_TEMPFAIL = os.EX_NOPERM, os.EX_CONFIG, os.EX_TEMPFAIL
EX_UNAVAILABLE = os.EX_UNAVAILABLE
"""Exit codes: something failed; called wrongly; Ctrl-C; the token is refused; a file or setting is
wrong; it may be done by running it again; nothing predicts for the project yet."""

app = typer.Typer(
    name="ls-yolo",
    help="YOLO models in Label Studio.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""The command line; each command registers itself in its own file."""


class ToolError(RuntimeError):
    """A command cannot be done; the message says what was found, expected, and what to do."""

    code = EX_FAILED


class TokenRefused(ToolError):
    """Label Studio does not take the token."""

    code = EX_NOPERM


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; where no terminal reads it, a row is a line, however long."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(*head, box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False)
    for row in rows:
        made.add_row(*row)
    width = None if sys.stdout.isatty() else 1_000_000
    lines = Console(width=width, markup=False, highlight=False, emoji=False)
    if sys.stdout.isatty():
        lines.print(made)
        return
    with lines.capture() as capture:
        lines.print(made)
    for line in capture.get().splitlines():
        say(line.rstrip())


def say(text: str) -> None:
    """A line on standard output."""
    print(text, flush=True)


def fail(text: str, code: int) -> int:
    """A line on standard error; returns ``code``."""
    print(f"error: {text}", file=sys.stderr, flush=True)
    return code
