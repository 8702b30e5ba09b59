"""``ls-yolo doctor``: what is wrong, and what to do."""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated

import typer

from ls_yolo import settings
from ls_yolo.cli.common import EX_USAGE, app, fail, say


@app.command("doctor", help="what is wrong with this installation, and what to do")
def doctor(
    project: Annotated[
        str, typer.Option(metavar="ID_OR_TITLE", help="this project alone, and all of its tasks")
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="this check alone; may be repeated")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON object a line")] = False,
) -> int:
    """Prints a line for each finding; 0: all is well, 1: warnings, 2: something is wrong."""
    from ls_yolo.doctor import base, run
    from ls_yolo.doctor.facts import Facts
    from ls_yolo.text import nearest

    for name in only or ():
        if name not in run.NAMES:
            return fail(
                f"no check is called {name!r}{nearest(name, list(run.NAMES))}; there is: "
                f"{', '.join(run.NAMES)}", EX_USAGE,
            )  # fmt: skip
    logging.getLogger("httpx").setLevel(logging.WARNING)
    lines = []
    for line in run.CHECKS.run(Facts(settings.read("setup"), project), only or ()):
        lines.append(line)
        say(json.dumps(line.as_json(), ensure_ascii=False) if as_json else str(line))
    if as_json:
        print(base.COMPLETE, file=sys.stderr, flush=True)
    return base.exit_code(lines)
