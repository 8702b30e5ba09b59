"""``ls-yolo``: the backend's code for a person's hands."""

from __future__ import annotations

import sys
from typing import Any

import typer

from ls_yolo.cli import (
    apply,
    check,
    doctor,
    export,
    labels,
    models,
    predict,
    predictions,
    prelabel,
    preview,
    schema,
    weights,
)
from ls_yolo.cli.common import (
    EX_CONFIG,
    EX_FAILED,
    EX_NOPERM,
    EX_STOPPED,
    EX_USAGE,
    ToolError,
    app,
    fail,
)

COMMANDS = (
    apply, prelabel, export, schema, weights, predict, preview, predictions, models, labels, check,
    doctor,
)  # fmt: skip
"""Each has registered itself."""
# What typer raises for words it cannot use; it has no public name for the base of BadParameter.
UsageError: Any = typer.BadParameter.__base__
STOPPED = "stopped; it is safe to run the same command again"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code.

    Args:
        argv: the words after the name of the program; unless given, those of the process.

    Raises:
        SystemExit: it was called wrongly.
    """
    try:
        code = int(app(args=argv, prog_name="ls-yolo", standalone_mode=False) or 0)
        return fail(STOPPED, EX_STOPPED) if code == EX_STOPPED else code
    except (KeyboardInterrupt, typer.Abort):
        return fail(STOPPED, EX_STOPPED)
    except Exception as error:
        # Imported here: --help needs none of them.
        from ls_yolo.config import ConfigError
        from ls_yolo.labelstudio.client import StudioError, TokenError
        from ls_yolo.models.weights import WeightsError
        from ls_yolo.settings import SettingError

        if isinstance(error, UsageError):
            raise SystemExit(fail(error.format_message(), EX_USAGE)) from None
        if isinstance(error, ConfigError | SettingError):
            return fail(str(error), EX_CONFIG)
        if isinstance(error, ToolError):
            return fail(str(error), error.code)
        if isinstance(error, TokenError):
            return fail(str(error), EX_NOPERM)
        if isinstance(error, WeightsError | StudioError):
            return fail(str(error), EX_FAILED)
        raise


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
