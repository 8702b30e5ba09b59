"""``ls-yolo predictions``: the versions of which a project has predictions."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from ls_yolo import settings
from ls_yolo.cli.common import TokenRefused, ToolError, app, say, table
from ls_yolo.text import nearest, some

if TYPE_CHECKING:
    from ls_yolo.labelstudio.bulk import Calls, PlainStore, Version
    from ls_yolo.labelstudio.client import Studio

group = typer.Typer(
    help="versions of a project's predictions: which there are, which is shown; deletes old ones",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(group, name="predictions")

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="a title, or an id")]


def open_studio() -> Studio:
    """Label Studio, as the settings say.

    Raises:
        TokenRefused: they name no token.
    """
    from ls_yolo.labelstudio.client import Studio

    values = settings.read("setup")
    if not values["LABEL_STUDIO_API_KEY"]:
        raise TokenRefused("LABEL_STUDIO_API_KEY: found nothing, expected a token of Label Studio")
    return Studio(values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"])


class Predictions:
    """A project and the versions of its predictions, the one stored last at the end.

    Raises:
        StudioError: Label Studio cannot be asked, or has no such project.
    """

    def __init__(self, name: str) -> None:
        import httpx
        from label_studio_sdk.core.api_error import ApiError

        from ls_yolo.labelstudio import display
        from ls_yolo.labelstudio.bulk import store_of
        from ls_yolo.labelstudio.client import StudioError, reason
        from ls_yolo.labelstudio.lookup import find_project

        self.studio = open_studio()
        project = find_project(self.studio, name)
        self.project, self.title = int(project.id), str(project.title)
        self.store: Calls | PlainStore = store_of(self.studio)
        self.versions: list[Version] = self.store.versions(self.project)
        try:
            found = display.look(self.studio, self.project)
        except (ApiError, httpx.HTTPError) as error:
            raise StudioError(f"{self.title}: {reason(error)}") from None
        self.current = found.current
        """The version of the project's models, as Label Studio knows it; empty: no backend."""
        self.shown = found.shown
        """The version whose predictions people see; empty: none."""

    @property
    def names(self) -> list[str]:
        return [version.name for version in self.versions]

    def check(self, version: str) -> None:
        """Raises ToolError where the project has no predictions of ``version``."""
        if version not in self.names:
            raise ToolError(
                f"{self.title}: found no predictions of {version!r}"
                f"{nearest(version, self.names)}; there are some of: {some(self.names)}"
            )


@group.command("list", help="the versions: how many predictions, when, which is shown")
def list_versions(
    project: Project,
    as_json: Annotated[bool, typer.Option("--json", help="the same, as JSON")] = False,
) -> None:
    """Prints the versions of a project's predictions, the one stored last at the end."""
    found = Predictions(project)
    rows = [
        {
            "version": version.name,
            "predictions": version.count,
            "failed": version.failed,
            "first": version.first,
            "last": version.last,
            "shown": version.name == found.shown != "",
            "current": version.name == found.current != "",
        }
        for version in found.versions
    ]
    if as_json:
        say(
            json.dumps({"project": found.project, "title": found.title, "versions": rows}, indent=2)
        )
        return
    if not rows:
        say(f"{found.title}: no predictions")
        return
    table(
        ("version", "predictions", "failed", "first", "last", ""),
        [
            (
                str(row["version"]) or "-",
                str(row["predictions"]),
                str(row["failed"]),
                _minute(str(row["first"])),
                _minute(str(row["last"])),
                " ".join(word for word in ("shown", "current") if row[word]),
            )
            for row in rows
        ],
    )


def _minute(time: str) -> str:
    """An ISO time, to the minute; UTC is what Label Studio stores."""
    return time[:16].replace("T", " ") or "-"


@group.command("rollback", help="show the predictions of another version")
def rollback(
    project: Project,
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="the version to show")],
) -> None:
    """Has a project show the predictions of a version that it has."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    from ls_yolo.labelstudio import display
    from ls_yolo.labelstudio.client import StudioError, reason

    found = Predictions(project)
    found.check(to)
    if found.shown == to:
        say(f"{found.title}: shows {to} already")
        return
    try:
        display.go_back(found.studio, found.project, to)
    except (ApiError, httpx.HTTPError) as error:
        raise StudioError(f"{found.title}: {reason(error)}") from None
    say(f"{found.title}: shows {to}; before: {found.shown or 'none'}")


@group.command("prune", help="delete the predictions of older versions")
def prune(
    project: Project,
    keep: Annotated[int, typer.Option(min=0, help="how many versions stay: those stored last")] = 1,
    named: Annotated[
        list[str] | None,
        typer.Option("--version", metavar="VERSION", help="this one, and no other; repeatable"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Deletes predictions of older versions, never of the one that is shown or the current one, nor
    of such as people have imported unless they are named."""
    found = Predictions(project)
    doomed = chosen(found, keep, named or [])
    if not doomed:
        say(f"{found.title}: nothing to delete")
        return
    total = sum(version.count for version in doomed)
    for version in doomed:
        name, last = version.name or "no version", _minute(version.last)
        say(f"{found.title}: {name}: {version.count} predictions, the last of {last}")
    if not yes:
        if not sys.stdin.isatty():
            raise ToolError(
                f"{total} predictions would be deleted; to do so without a question: --yes"
            )
        typer.confirm(f"delete {total} predictions?", abort=True)
    say(f"{found.title}: deleted {_delete(found, doomed, total)} predictions")


def chosen(found: Predictions, keep: int, named: Sequence[str]) -> list[Version]:
    """The versions to delete.

    Raises:
        ToolError: one of ``named`` has no predictions, or must stay.
    """
    from ls_yolo.labelstudio import versions

    stay = {found.shown, found.current} - {""}
    for name in named:
        found.check(name)
        if name in stay:
            what = "shown" if name == found.shown else "the current one"
            raise ToolError(
                f"{found.title}: {name} is {what}, and stays; "
                f"show another first: ls-yolo predictions rollback {found.project} --to VERSION"
            )
    if named:
        return [version for version in found.versions if version.name in named]
    ours = [version for version in found.versions if versions.models(version.name)]
    older = ours[: max(0, len(ours) - keep)]
    return [version for version in older if version.name not in stay]


def _delete(found: Predictions, doomed: Sequence[Version], total: int) -> int:
    """Deletes in batches, so that no request is long, and one that was stopped is gone on with."""
    from rich.console import Console
    from rich.progress import Progress

    deleted = 0
    shown = sys.stderr.isatty()
    with Progress(console=Console(stderr=True)) if shown else nullcontext() as progress:
        task = progress.add_task("deleting", total=total) if progress else None
        for version in doomed:
            while number := found.store.delete(found.project, version.name):
                deleted += number
                if progress and task is not None:
                    progress.update(task, completed=deleted)
    return deleted
