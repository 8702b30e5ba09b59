"""``ls-yolo apply``: Label Studio as project files say."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ls_yolo import settings
from ls_yolo.cli.common import (
    EX_FAILED,
    EX_NOPERM,
    EX_TEMPFAIL,
    EX_USAGE,
    ToolError,
    app,
    fail,
    say,
)
from ls_yolo.cli.prelabel import Again, Wishes, predict, refused

if TYPE_CHECKING:
    from ls_yolo.jobs.prelabel import Store
    from ls_yolo.labelstudio.client import Studio
    from ls_yolo.projects.apply import Applier, Made
    from ls_yolo.projects.config import Project

EX_DIFFERENT = 3
"""Exit code of --diff where something would change."""
TRIES = 3
"""How often a project is predicted whose models are replaced meanwhile."""


@app.command("apply", help="make Label Studio as project files say; safe to run again")
def apply(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE_OR_FOLDER...")],
    diff: Annotated[
        bool,
        typer.Option(
            "--diff", help="only show what would change; ends with 3 where something would"
        ),
    ] = False,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune", help="delete storages, webhooks, views and connections that no file has"
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="prune without asking")] = False,
) -> int:
    """Makes Label Studio as the project files say; returns the exit code."""
    # Imported here: --help and errors in settings need none of it.
    from ls_yolo.labelstudio.client import Studio, TokenError
    from ls_yolo.projects import config
    from ls_yolo.projects.apply import Applier, check_token
    from ls_yolo.projects.backend import ApplyError, Backend, wait
    from ls_yolo.projects.secrets import read

    values = settings.read("setup")
    wanted = config.read(*paths)
    # Not what the kit itself is started with: a file that anybody wrote could send it anywhere.
    given = {name: text for name, text in os.environ.items() if name not in settings.BY_NAME}
    given |= read(given.pop("PROJECT_SECRETS", ""), settings.BY_NAME)
    backend = Backend(values["BACKEND_URL"], values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    studio = Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])
    if not wanted:
        say(f"no project in {', '.join(map(str, paths))}; a file such as demo.yaml makes one")
    failed = 0
    faults = {}
    try:
        wait(f"{studio.url}/health", values["SETUP_TIMEOUT"], say)
        wait(f"{backend.url}/readyz", values["SETUP_TIMEOUT"], say)
        check_token(studio)
        if not diff:
            # Or what was put there just now would be predicted with the models before it.
            faults = backend.reload()
    except ApplyError as error:
        return fail(str(error), _code(error))
    for name, fault in faults.items():
        say(f"warning: model {name}: {fault}")
    root = Path(values["LOCAL_FILES_DOCUMENT_ROOT"])
    applier = Applier(studio, backend, root, say, faults, given)
    if diff:
        return _diff(applier, wanted, prune)
    if prune and not yes and (code := _ask(applier, wanted)):
        return code
    for project in wanted:
        try:
            bring(applier, studio, project, values, prune)
        except (ApplyError, TokenError, ToolError) as error:
            # The other projects do not suffer for this one.
            code = fail(str(error), _code(error))
            failed = code if failed in (0, code) else EX_FAILED
    return failed


def bring(
    applier: Applier,
    studio: Studio,
    project: Project,
    values: dict[str, Any],
    prune: bool = False,
) -> None:
    """Makes or repairs a project, and has its tasks predicted.

    Raises:
        ApplyError, TokenError, ToolError: it cannot be made, or not be predicted.
    """
    from ls_yolo.labelstudio import bulk

    for tries in range(TRIES):
        made = applier.apply(project, prune)
        if not project.predict or made.waiting:
            return
        try:
            with refused():
                _predict(studio, bulk.store_of(studio), made, values)
            return
        except Again as error:
            # The connection bears the version, so all of the project is looked at again.
            if tries == TRIES - 1:
                raise
            say(str(error))


def _code(error: Exception) -> int:
    """The exit code for what could not be done."""
    from ls_yolo.labelstudio.client import TokenError
    from ls_yolo.projects.backend import NotReady

    if isinstance(error, ToolError):
        return error.code
    if isinstance(error, TokenError):
        return EX_NOPERM
    return EX_TEMPFAIL if isinstance(error, NotReady) else EX_FAILED


def _diff(applier: Applier, wanted: list[Project], prune: bool) -> int:
    """Prints what would change; returns the exit code."""
    from ls_yolo.projects.backend import ApplyError

    code = 0
    for project in wanted:
        try:
            text = applier.diff(project, prune)
        except ApplyError as error:
            code = fail(str(error), EX_FAILED)
            continue
        if text:
            sys.stdout.write(text)
            code = code or EX_DIFFERENT
        else:
            say(f"{project.title}: nothing would change")
    return code


def _ask(applier: Applier, wanted: list[Project]) -> int:
    """Asks a person whether to delete what no file has; returns the exit code where not."""
    from ls_yolo.projects.backend import ApplyError

    try:
        gone = [line for project in wanted for line in applier.deletions(project)]
    except ApplyError as error:
        return fail(str(error), EX_FAILED)
    if not gone:
        return 0
    say("to be deleted:")
    for line in gone:
        say(f"  {line}")
    if not sys.stdin.isatty():
        return fail("--prune asks before it deletes, and nobody is there; add --yes", EX_USAGE)
    typer.confirm("Delete them?", abort=True)
    return 0


def _predict(studio: Studio, store: Store, made: Made, values: dict[str, Any]) -> None:
    """Has the tasks of a project predicted. Those that fail are told, and fail nothing else.

    Raises:
        ToolError: there is no task although there should be, or the version changes all the time.
    """
    from ls_yolo.jobs.predicting import Target
    from ls_yolo.jobs.prelabel import Options

    project = made.project
    if project.has_images and not made.tasks:
        raise ToolError(
            f"{project.title}: found no task, expected at least one; "
            "put images where its storages are"
        )
    target = Target(made.id, project.title, project.label_config, project.models, made.born)
    # Images may be there by now. What ended the backend in several runs would do so each time.
    options = Options(retry="own", score=values["PRELABEL_SCORE"], folder=Path(values["MODEL_DIR"]))
    predict(studio, store, target, options, Wishes(json=False), values)
