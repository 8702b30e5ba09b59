"""``ls-yolo prelabel``: predictions for all tasks of a project."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from ls_yolo import settings
from ls_yolo.cli.common import (
    EX_FAILED,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    TokenRefused,
    ToolError,
    app,
    fail,
    say,
)
from ls_yolo.cli.predictions import open_studio

if TYPE_CHECKING:
    from ls_yolo.jobs.predicting import Described, Predicting, Target
    from ls_yolo.jobs.prelabel import Options, Store, Summary, Work
    from ls_yolo.jobs.progress import State
    from ls_yolo.labelstudio.bulk import Task
    from ls_yolo.labelstudio.client import Studio
    from ls_yolo.results import Image

READY_SECONDS = 180.0
"""How long a service that has gone away is waited for before the next task is tried."""
RESTART_SECONDS = 60.0
"""How long the backend is waited for at the beginning: it may be restarting, or not be there."""


class Again(ToolError):
    """It was not done, and the same command again may do it."""

    code = EX_TEMPFAIL


@dataclass(frozen=True)
class Wishes:
    """What is asked for besides the project: see the command's options. ``out``: where the report
    goes whose name is -."""

    here: bool = False
    dry_run: bool = False
    replace: bool = False
    report: str = ""
    metrics: str = ""
    json: bool = True
    out: TextIO = field(default_factory=lambda: sys.stdout)


@app.command("prelabel", help="predict all tasks of a project; safe to stop and to run again")
def prelabel(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="its title or number")],
    model: Annotated[
        str,
        typer.Option(metavar="NAME[+NAME]", help="models; else those of the project's connection"),
    ] = "",
    where: Annotated[
        str,
        typer.Option(
            metavar="FILTER",
            help="only such tasks: a filter of the Data Manager as JSON, @FILE, or view:TITLE",
        ),
    ] = "",
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="only the I-th of N parts, from 0: for N machines")
    ] = "",
    here: Annotated[
        bool, typer.Option("--here", help="predict in this process, with models of its own")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what there is to do, and do nothing")
    ] = False,
    replace_old: Annotated[
        bool,
        typer.Option("--replace", help="then delete predictions of older versions of these models"),
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="try what failed too often again")] = False,
    fields: Annotated[
        bool,
        typer.Option("--fields", help="write how many objects there are into the tasks' data"),
    ] = False,
    report: Annotated[
        str, typer.Option(metavar="FILE", help="FILE.html with FILE.json, FILE.json, or -")
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="FILE_OR_URL", help="a .prom file, or a Pushgateway")
    ] = "",
    kubernetes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="by N pods of the cluster of kubectl's context"),
    ] = None,
    namespace: Annotated[
        str, typer.Option(metavar="NAME", help="of the release there; else kubectl's own")
    ] = "",
    queue: Annotated[str, typer.Option(metavar="NAME", help="Kueue's LocalQueue there")] = "",
) -> int:
    """Predicts what lacks a prediction of the current version; returns the exit code.

    0: every task has one; 1: some failed, which are listed; 69: nothing predicts for the project
    yet; 75: run it again.
    """
    # Imported here: --help and errors in settings need none of it.
    from ls_yolo.jobs import scope
    from ls_yolo.jobs.predicting import Target
    from ls_yolo.jobs.prelabel import Options
    from ls_yolo.labelstudio import bulk, selection
    from ls_yolo.labelstudio.lookup import find_project
    from ls_yolo.projects.apply import check_token
    from ls_yolo.projects.backend import wait

    if kubernetes:
        from ls_yolo.cli import many_pods

        if shard or replace_old:
            raise typer.BadParameter(
                "--kubernetes: each pod has a shard, so neither --shard nor --replace goes with "
                "it; --replace is for a run of its own, once all is predicted"
            )
        words = many_pods.words(model, where, retry, fields, metrics)
        return many_pods.predict(project, kubernetes, words, namespace, queue, dry_run, report)
    values = settings.read("setup")
    studio = open_studio()
    wishes = Wishes(here, dry_run, replace_old, report, metrics)
    if replace_old and (where or shard):
        raise typer.BadParameter(
            "--replace: deletes older predictions of the whole project, so it does not go with "
            "--where or --shard; run it without them once all is predicted"
        )
    signal.signal(signal.SIGTERM, _terminate)
    # Standard output may be the report's.
    aside = contextlib.redirect_stdout(sys.stderr) if report == "-" else contextlib.nullcontext()
    with refused(), aside:
        wait(f"{studio.url}/health", values["SETUP_TIMEOUT"], say)
        check_token(studio)
        if not here:
            wait(f"{values['BACKEND_URL'].rstrip('/')}/readyz", values["SETUP_TIMEOUT"], say)
        found = find_project(studio, project)
        number = int(found.id)
        names = selection.from_url(model) if model else ()
        target = Target(
            number,
            str(found.title),
            str(found.label_config),
            names or selection.of_connections(studio.connections(number)),
            str(found.created_at or ""),
        )
        options = Options(
            scope.where(where, studio, number) if where else None,
            scope.shard(shard) if shard else None,
            "all" if retry else "nothing",
            fields,
            values["PRELABEL_SCORE"],
            Path(values["MODEL_DIR"]),
            here,
        )
        return predict(studio, bulk.store_of(studio), target, options, wishes, values)


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Makes of what bulk work raises what the command line tells.

    Raises:
        TokenRefused: Label Studio does not take the token.
        Again: a service was away, or busy, for too long; the models were replaced meanwhile; or
            there is no such project yet.
        ToolError: anything else that a person can put right.
    """
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    from ls_yolo.errors import RequestError
    from ls_yolo.jobs.pipeline import Changed
    from ls_yolo.jobs.predicting import Away, Busy
    from ls_yolo.jobs.report import ReportError
    from ls_yolo.jobs.scope import ScopeError
    from ls_yolo.jobs.waiting import Stopped
    from ls_yolo.labelstudio import client, lookup
    from ls_yolo.projects.backend import ApplyError, NotReady

    try:
        yield
    except client.TokenError as error:
        raise TokenRefused(str(error)) from None
    except (client.StudioDown, lookup.NoProject, Away, Busy, Changed, NotReady, Stopped) as error:
        raise Again(str(error)) from None
    except (ApiError, httpx.HTTPError) as error:
        kind = Again if client.away(error) else ToolError
        raise kind(f"Label Studio: {client.reason(error)}") from None
    except (RequestError, ApplyError, ReportError, ScopeError) as error:
        raise ToolError(str(error)) from None


def _terminate(number: int, frame: object) -> NoReturn:
    """Ends as Ctrl-C does: what is stored stays, and nothing that is under way is waited for."""
    raise KeyboardInterrupt


def _described(predicting: Predicting) -> Described:
    """What will answer. A backend that just restarts is waited for."""
    from ls_yolo.jobs.predicting import Away
    from ls_yolo.jobs.waiting import patiently

    told: list[str] = []

    def ask() -> Described:
        try:
            return predicting.describe()
        except Away as error:
            if not told:
                told.append(str(error))
                say(f"waiting for the backend: {error}")
            raise

    return patiently(ask, threading.Event(), RESTART_SECONDS, Away)


def predict(
    studio: Studio,
    store: Store,
    target: Target,
    options: Options,
    wishes: Wishes,
    values: Mapping[str, Any],
) -> int:
    """Predicts the tasks of ``target``, and says what was done; returns the exit code.

    Args:
        values: the settings of setup.

    Raises:
        ToolError, RequestError: it cannot be done.
    """
    from ls_yolo.jobs import prelabel as job
    from ls_yolo.jobs import report as reports
    from ls_yolo.jobs.board import Board
    from ls_yolo.jobs.pipeline import Changed
    from ls_yolo.jobs.progress import Progress
    from ls_yolo.labelstudio import display
    from ls_yolo.labelstudio.bulk import PlainStore

    if wishes.report:
        reports.check(wishes.report)
    tell = _telling(wishes, options, target)
    likeness = not isinstance(store, PlainStore)
    predicting = _predicting(studio, target, wishes, values, likeness)
    described = _described(predicting)
    _tell(target, described)
    if described.waiting:
        return EX_UNAVAILABLE
    version = described.version
    report = reports.Report(target.title, version) if wishes.report else None
    work_of = job.Prelabel(
        studio,
        store,
        target,
        predicting,
        version,
        options,
        report,
        _pictures(studio, target) if report else lambda task: None,
        _ready(studio, None if wishes.here else values["BACKEND_URL"]),
    )
    work = work_of.look()
    if wishes.dry_run:
        _plan(target, version, work, options)
        return 0
    if not likeness and work.todo:
        say(
            f"{target.title}: warning: this Label Studio is not of the kit's image: storing is "
            "slower, and images that look alike are not grouped"
        )
    if options.where is None:
        names = "+".join(target.models) or "default model"
        display.begin(studio, target.id, version, _there(store, target.id), names)
    # Where there is nothing to do, no run is worth a line on the status page.
    url = values["BACKEND_URL"] if work.todo else ""
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    board = Board(url, user, password, target, version, options.shard, once=wishes.here)

    def listen(state: State) -> None:
        tell(state, False)
        board.tell(state)

    progress = Progress(
        work.todo,
        target.title,
        None if wishes.json else sys.stdout,
        listener=listen,
        text=not wishes.json,
    )
    began = time.monotonic()
    how = "failed"
    try:
        summary = work_of.run(work, progress)
        how = "failed" if summary.missing else "done"
    except Changed as error:
        raise Again(f"{target.title}: {error}") from None
    finally:
        board.tell(progress.state, how)
        if report:  # however it ended: it is of what was done until then
            report.seconds = time.monotonic() - began
            report.present = work.total - work.missing
            with contextlib.redirect_stdout(wishes.out):
                report.write(wishes.report)
    if summary.state and not summary.missing:
        tell(summary.state, True)
    # What can be had of the version is there: by this run, or by the last of all shards.
    left = summary.unexplained if options.whole else work_of.lacking()
    return _end(studio, store, target, version, options, wishes, summary, left)


def _end(
    studio: Studio,
    store: Store,
    target: Target,
    version: str,
    options: Options,
    wishes: Wishes,
    summary: Summary,
    left: int,
) -> int:
    """Says what was done, and does what comes after; returns the exit code.

    left: tasks of the project that lack the version and may be predicted yet.
    """
    from ls_yolo.jobs import prelabel as job
    from ls_yolo.labelstudio import display

    title = target.title
    kept = "" if left else display.end(studio, target.id, version, _there(store, target.id))
    if kept:
        say(
            f"{title}: shows {kept} still, since somebody has gone back to it; "
            f"ls-yolo predictions rollback {target.id} --to {version} shows what is new"
        )
    elif left and (shown := display.look(studio, target.id).shown) not in ("", version):
        say(
            f"{title}: shows {shown} still: {left} tasks lack {version}; "
            f"ls-yolo predictions rollback {target.id} --to {version} shows it all the same"
        )
    code = 0
    if summary.missing or summary.came:
        code = _failures(target, summary)
    elif summary.total:
        say(f"{title}: {summary.total} tasks, each with a stored prediction of {version}")
    else:
        say(f"{title}: no task yet")
    if options.fields and summary.total - summary.missing > summary.stored:
        say(f"{title}: tasks that were predicted before without --fields get no counts")
    if wishes.replace and (lack := summary.missing + summary.came):
        fail(
            f"{title}: older predictions stay, since {lack} tasks lack one of "
            f"{version}; ls-yolo predictions prune removes them all the same",
            EX_FAILED,
        )
    elif wishes.replace:
        job.replace(store, target.id, version, kept, lambda text: say(f"{title}: {text}"))
    return code


def _failures(target: Target, summary: Summary) -> int:
    """Names tasks without a prediction, and why; returns the exit code."""
    from ls_yolo.jobs.quarantine import MAX_TRIES

    failed = summary.failed + summary.left_out
    if not failed:
        say(
            f"{target.title}: {summary.missing + summary.came} tasks came meanwhile, or another run"
            " predicts them; run it again to have them predicted"
        )
        return EX_TEMPFAIL
    say(
        f"{target.title}: warning: {failed} tasks could not be predicted; "
        "mend or delete them and run it again:"
    )
    for failure in summary.failures:
        say(f"  task {failure.task}: {failure.reason}")
    if failed > len(summary.failures):
        say(f"  and {failed - len(summary.failures)} more; --report FILE.html has all reasons")
    if summary.left_out:
        say(
            f"  {summary.left_out} of them were left out, since they failed in {MAX_TRIES} runs; "
            "--retry tries them again"
        )
    say(f"{target.title}: {summary.total - summary.missing} of {summary.total} tasks predicted")
    return EX_FAILED


def _plan(target: Target, version: str, work: Work, options: Options) -> None:
    """Says what there is to do."""
    part = f", shard {options.shard[0]} of {options.shard[1]}" if options.shard else ""
    out = f"; {work.left_out} of them are left out, since they failed before" * bool(work.left_out)
    say(
        f"{target.title}: {work.total} tasks{part}, {work.missing} without a prediction of "
        f"{version}{out}; nothing was done"
    )


def _tell(target: Target, described: Described) -> None:
    """Warns of what will not be drawn."""
    if described.waiting:
        say(f"{target.title}: warning: {described.waiting}; no task is predicted until then")
        return
    for control, labels in described.unmapped.items():
        for why in labels.values():
            print(f"{target.title}: warning: {control}: {why}", file=sys.stderr)


def _predicting(
    studio: Studio,
    target: Target,
    wishes: Wishes,
    values: Mapping[str, Any],
    likeness: bool,
) -> Predicting:
    from ls_yolo.jobs.predicting import OverHttp

    if wishes.here:
        from ls_yolo.jobs.here import Here  # here: torch takes seconds

        return Here(settings.read("backend"), studio, target, likeness)
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    return OverHttp(values["BACKEND_URL"], user, password, target, likeness)


def _there(store: Store, project: int) -> set[str]:
    """The versions that a project has predictions of."""
    return {one.name for one in store.versions(project) if one.count > one.failed}


def _pictures(studio: Studio, target: Target) -> Callable[[Task], Image | None]:
    """Reads the image of a task, for the report."""
    from ls_yolo.errors import RequestError
    from ls_yolo.images.limits import MediaError
    from ls_yolo.labelstudio import label_config
    from ls_yolo.serving.reading import ImageReader

    controls = [one for one in label_config.parse(target.config) if not one.of_video]
    reader = ImageReader.read(settings.read("backend"), studio)

    def picture(task: Task) -> Image | None:
        whole = {"id": task.id, "data": task.data, "project": target.id}
        for control in controls:
            for shown in label_config.shown(control, task.data):
                try:
                    with (
                        reader.fetched(whole, shown.url) as file,
                        reader.decoded(file, None) as (image, _),
                    ):
                        return image
                except (MediaError, RequestError):
                    return None  # the report does without
        return None

    return picture


def _ready(studio: Studio, backend: str | None) -> Callable[[], None]:
    """Returns when Label Studio and the backend answer; raises Away where one of them has not
    within `READY_SECONDS`."""
    from ls_yolo.jobs.predicting import Away
    from ls_yolo.projects.backend import NotReady, wait

    urls = [f"{studio.url}/health"] + ([f"{backend.rstrip('/')}/readyz"] if backend else [])

    def ready() -> None:
        for url in urls:
            try:
                wait(url, READY_SECONDS, lambda _: None)
            except NotReady as error:
                raise Away(str(error)) from None

    return ready


def _telling(wishes: Wishes, options: Options, target: Target) -> Callable[[State, bool], None]:
    """Tells metrics, if there is anyone to tell; a failure of that is said once.

    Its second argument: whether the run has ended with every task predicted.
    """
    if not wishes.metrics:
        return lambda state, done: None
    from ls_yolo.jobs.telemetry import Telemetry

    shard = options.shard[0] if options.shard else None
    try:
        telemetry = Telemetry(wishes.metrics, target.title, shard)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(f"--metrics: {error}") from None
    told = threading.Event()

    def tell(state: State, done: bool) -> None:
        try:
            telemetry.tell(state, done)
        except OSError as error:
            if not told.is_set():
                told.set()
                fail(f"--metrics {wishes.metrics}: {error}; it goes on without", EX_FAILED)

    return tell
