"""What the commands share: messages, tables, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

EX_FAILED, EX_NOPERM, EX_CONFIG, EX_STOPPED = 1, 77, 78, 130
"""Exit codes: something failed; the token is refused; a file or setting is wrong; Ctrl-C."""


class ToolError(RuntimeError):
    """A command cannot be done; the message says what was found, expected, and what to do."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )


def say(text: str) -> None:
    print(text, flush=True)


def fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    return code
