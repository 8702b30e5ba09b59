"""Predictions for all tasks of a project that lack one of the current version.

What is stored in Label Studio is the truth: which tasks lack a prediction is asked anew, page by
page, so a run that was killed needs no memory of its own, and goes on where it was.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from ls_yolo.images.likeness import Clusters
from ls_yolo.jobs import fields
from ls_yolo.jobs.pipeline import BATCH, REQUESTS, Answered, Pipeline, Steps
from ls_yolo.jobs.predicting import Noted, Predicting, PredictingError, Target
from ls_yolo.jobs.progress import Progress, State
from ls_yolo.jobs.quarantine import Failure, Quarantine
from ls_yolo.jobs.report import Report
from ls_yolo.jobs.waiting import patiently
from ls_yolo.labelstudio import label_config, versions
from ls_yolo.labelstudio.bulk import Calls, Counts, Page, PlainStore, Row, Task, Where
from ls_yolo.labelstudio.client import Studio
from ls_yolo.results import Image
from ls_yolo.serving import scores

PAGE = 500
"""Tasks that are read by one request."""
PASSES = 3
"""How often the tasks are gone through at most: what failed in the first has another chance, since
a service may have been away just then."""
ALL_FAIL = 500
"""So many tasks that fail by themselves, before any of a project is predicted: then no image can be
read, and all others would fail as well."""
SAVE_SECONDS = 60.0
"""How often groups of images are saved: a run that is killed loses those since."""
LISTED = 10
"""Failures that a summary has; the report has more."""

Say = Callable[[str], None]
Retry = Literal["nothing", "own", "all"]
Store = Calls | PlainStore
"""What keeps predictions: the kit's Label Studio, or any other."""
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How tasks are predicted.

    where: a filter of the Data Manager, of the tasks that count; None: all.
    shard: index from 0 and total; None: all.
    retry: what is tried again that failed too often: nothing, what failed by itself (an image that
        may be there by now), or all, also what may end the backend.
    fields: whether counts are written into the tasks' data.
    score: how uncertain a prediction is; see `scores`.
    folder: where failures and groups of images are kept.
    here: whether this process predicts itself, so that a task may end it.
    """

    where: Where | None = None
    shard: tuple[int, int] | None = None
    retry: Retry = "nothing"
    fields: bool = False
    score: str = scores.DEFAULT
    folder: Path = Path("/data/models")
    here: bool = False

    @property
    def whole(self) -> bool:
        """Whether all tasks of the project are meant."""
        return self.where is None and self.shard in (None, (0, 1))


@dataclass(frozen=True)
class Work:
    """What there is to do. total: tasks; missing: those without a prediction of the version;
    left_out: those that failed in too many runs before."""

    total: int
    missing: int
    left_out: int

    @property
    def todo(self) -> int:
        """Tasks that will be tried."""
        return max(0, self.missing - self.left_out)


@dataclass
class Summary:
    """What was done.

    stored: predictions; present: those that another run had stored meanwhile; gone: tasks deleted
    meanwhile; failed: tasks that could not be predicted; left_out: such that were not even tried;
    missing: those of them that lack a prediction now; came: such that were not there at the start;
    failures: the first of those that failed or were left out.
    """

    total: int
    stored: int = 0
    present: int = 0
    gone: int = 0
    failed: int = 0
    left_out: int = 0
    missing: int = 0
    came: int = 0
    failures: Sequence[Failure] = ()
    state: State | None = None

    @property
    def unexplained(self) -> int:
        """Tasks without a prediction that another run has under way."""
        return max(0, self.missing - self.failed - self.left_out)


@dataclass
class _Tally:
    """What a run keeps of its tasks: ids of those that have no prediction by it, not more."""

    lost: set[int] = field(default_factory=set)  # whose request failed as a whole: not asked again
    failed: set[int] = field(default_factory=set)  # all that failed, in the last pass or before
    soft: int = 0  # of this pass, which another pass may mend
    left_out: set[int] = field(default_factory=set)
    unseen: set[int] = field(default_factory=set)  # failed before this pass, and not met in it yet

    @property
    def ids(self) -> list[int]:
        """All that failed or were left out."""
        return sorted(self.failed | self.left_out)


class Prelabel:
    """Predicts the tasks of a project; see the top of the file.

    Args:
        store: what keeps predictions, in ``studio``.
        target, predicting: what is predicted, and by whom.
        version: what answers, and must do so until the end.
        report: is told what became of tasks, if there is one; ``picture`` reads the image of a task
            for it, of a few.
        ready: returns when the services answer.
    """

    def __init__(
        self,
        studio: Studio,
        store: Store,
        target: Target,
        predicting: Predicting,
        version: str,
        options: Options,
        report: Report | None = None,
        picture: Callable[[Task], Image | None] = lambda task: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._studio = studio
        self._store = store
        self._target = target
        self._predicting = predicting
        self._version = version
        self._options = options
        self._report = report
        self._picture = picture
        self._ready = ready
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tally = _Tally()
        self._controls = label_config.parse(target.config)
        self._labels = [label.value for control in self._controls for label in control.labels]
        self._fresh = False  # whether nothing at all is predicted yet
        self._saved = 0.0
        self._columns = dict.fromkeys(fields.counts([], self._labels))
        self._quarantine = Quarantine(
            options.folder,
            studio.url,
            target.key,
            version,
            secrets.token_hex(8),
            options.shard,
        )

        if options.here:
            self._predicting = Noted(predicting, self._quarantine.begin, self._quarantine.end)

    def look(self) -> Work:
        """What there is to do, by one query.

        Raises:
            StudioError: Label Studio refuses or is away.
        """
        counts = self._counts()
        retry = self._options.retry
        left_out = 0 if retry == "all" else self._quarantine.kept(lost=retry == "own")
        return Work(counts.total, counts.missing, min(left_out, counts.missing))

    def _counts(self, highest: int | None = None) -> Counts:
        scope = self._options.where, self._options.shard
        return self._ask(
            lambda: self._store.count(self._target.id, self._version, *scope, highest=highest)
        )

    def run(self, work: Work, progress: Progress, requests: int = REQUESTS) -> Summary:
        """Predicts, and returns what was done.

        Raises:
            Changed: another version answers by now.
            PredictingError, StudioError: it cannot go on, or all tasks fail; what was predicted is
            stored.
        """
        options = self._options
        if options.retry != "nothing":
            self._quarantine.clear(lost=options.retry == "all")
        summary = Summary(work.total)
        self._fresh = work.missing == work.total
        groups = self._options.folder / "likeness" / f"{self._target.id}.groups"
        clusters = Clusters.load(groups)
        highest = self._ask(lambda: self._store.highest(self._target.id))
        # A video may take all the time of a request.
        size = 1 if any(control.of_video for control in self._controls) else BATCH

        def store(answered: Sequence[Answered]) -> None:
            self._keep(answered, clusters, summary, progress)
            if time.monotonic() > self._saved + SAVE_SECONDS:
                _save(clusters, groups)
                self._saved = time.monotonic()

        def failed(task: Task, why: str, lost: bool) -> None:
            self._fail(task.id, why, lost, progress)

        try:
            if options.here and (suspects := self._quarantine.suspects()):
                # Alone, and first: if one ends this process too, it is known for sure which.
                steps = Steps(self._each(suspects), store, failed, self._ready)
                Pipeline(steps, self._predicting, self._version, self._stop, 1, 1).run(
                    progress.tick
                )
            for number in range(PASSES):
                self._tally.soft = 0
                self._tally.left_out.clear()
                self._tally.unseen = set(self._tally.failed)
                steps = Steps(self._pages(highest), store, failed, self._ready)
                pipeline = Pipeline(
                    steps, self._predicting, self._version, self._stop, size, requests
                )
                pipeline.run(progress.tick)
                self._count(summary, highest)
                if not summary.unexplained and not (self._tally.soft and number == 0):
                    break
            # Label Studio itself may have stored some of them meanwhile, for who opened a task.
            while self._ask(lambda: self._store.settle(self._target.id, self._version)):
                pass
            if self._options.fields:
                fields.show(self._studio, self._target.id, self._columns)
            # Before the end is told to all who wait: Label Studio may be away just now.
            summary.came = max(0, self._counts().missing - summary.missing)
        finally:
            self._stop.set()
            if options.here:
                self._quarantine.end()  # a person's Ctrl-C is no fault of what is under way
            _save(clusters, groups)
            summary.state = progress.end()
            summary.failures = list(self._quarantine.of(self._tally.ids[:LISTED]))
            if self._report:
                for failure in self._quarantine.of(self._tally.ids):
                    self._report.fail(failure.task, failure.reason)
        return summary

    def lacking(self) -> int:
        """Tasks of the whole project without a prediction, whoever was to predict them; 0 also
        where all of them are known to have failed, here or in a run with the same folder.

        Raises:
            StudioError: Label Studio refuses or is away.
        """
        project, version, after = self._target.id, self._version, 0
        highest = self._store.highest(project)
        while True:
            page = self._store.missing(
                project, version, after=after, limit=PAGE, where=None, shard=None, highest=highest
            )
            known = {one.task for one in self._quarantine.of(task.id for task in page.tasks)}
            if any(task.id not in known for task in page.tasks):
                return self._store.count(project, version).missing
            after = page.last
            if not after:
                return 0

    def _ask(self, ask: Callable[[], T]) -> T:
        return patiently(ask, self._stop)

    def _count(self, summary: Summary, highest: int) -> None:
        """After a pass. Tasks that came meanwhile are no reason for another: there might always be
        some."""
        # Tasks that are gone, or that another run has predicted.
        self._tally.failed -= self._tally.unseen
        self._quarantine.forget(self._tally.unseen)
        summary.missing = self._counts(highest).missing
        summary.failed = len(self._tally.failed)
        summary.left_out = len(self._tally.left_out)

    def _missing(self, after: int, highest: int, limit: int) -> Page:
        """Tasks of this run that lack a prediction, with ids above ``after`` up to ``highest``."""
        where, shard = self._options.where, self._options.shard
        return self._ask(
            lambda: self._store.missing(
                self._target.id,
                self._version,
                after=after,
                limit=limit,
                where=where,
                shard=shard,
                highest=highest,
            )
        )

    def _pages(self, highest: int) -> Iterator[Sequence[Task]]:
        """The tasks to predict: those that are missing and were not given up."""
        after = 0
        while True:
            page = self._missing(after, highest, PAGE)
            out = self._quarantine.left_out([task.id for task in page.tasks])
            with self._lock:
                self._tally.left_out |= out
                self._tally.unseen.difference_update(task.id for task in page.tasks)
            yield [t for t in page.tasks if t.id not in out and t.id not in self._tally.lost]
            after = page.last
            if not after:
                return

    def _each(self, tasks: Sequence[int]) -> Iterator[Sequence[Task]]:
        """Those of ``tasks`` that are missing still and were not given up, one by one."""
        out = self._quarantine.left_out(tasks)
        for task in tasks:
            if task not in out:
                page = self._missing(task - 1, task, 1)
                yield page.tasks

    def _keep(
        self,
        answered: Sequence[Answered],
        clusters: Clusters,
        summary: Summary,
        progress: Progress,
    ) -> None:
        """Stores predictions; in the writer's thread."""
        project, how = self._target.id, self._options.score
        rows = [
            Row(
                task.id,
                answer.result,
                scores.score(answer.result, how, answer.score),
                self._version,
                None if answer.likeness is None else clusters.of_hash(answer.likeness),
            )
            for task, answer in answered
        ]
        if self._options.fields:
            # First: a task that has its prediction is not looked at again.
            values = {row.task: fields.counts(row.result, self._labels) for row in rows}
            self._ask(lambda: self._store.numbers(project, values))
            for found in values.values():
                self._columns.update(dict.fromkeys(found))
        outcome = self._ask(lambda: self._store.store(project, rows))
        refused = dict(outcome.refused)
        bad = set(outcome.gone) | set(refused)
        kept = [row for row in rows if row.task not in bad]
        for task, why in refused.items():
            self._fail(task, f"Label Studio refuses the prediction: {why}", True, progress)
        self._quarantine.forget([row.task for row in kept])
        with self._lock:
            self._fresh = self._fresh and not kept
            mended = {row.task for row in kept} & self._tally.failed
            self._tally.failed -= mended
            summary.stored += outcome.stored
            summary.present += outcome.present
            summary.gone += len(outcome.gone)
        progress.add(done=len(kept) + len(outcome.gone), failed=-len(mended))
        if self._report:
            tasks = {task.id: task for task, _ in answered}
            for row in kept:
                image = partial(self._picture, tasks[row.task])
                self._report.add(row.task, row.result, row.score, image)

    def _fail(self, task: int, why: str, lost: bool, progress: Progress) -> None:
        """Keeps that a task failed; in any thread."""
        self._quarantine.fail(task, why, lost)
        with self._lock:
            new = task not in self._tally.failed
            self._tally.failed.add(task)
            if lost:
                self._tally.lost.add(task)
            else:
                self._tally.soft += 1
            alike = self._fresh and len(self._tally.failed) >= ALL_FAIL
        progress.add(failed=int(new))
        if alike:
            raise PredictingError(
                f"the first {ALL_FAIL} tasks could not be predicted, and no other is: "
                f"task {task}: {why}; see whether images are where the tasks say"
            )


def replace(store: Store, project: int, version: str, shown: str, say: Say) -> int:
    """Deletes the predictions of older versions of the same models; returns how many.

    What is ``shown`` stays, what other models said, what people have imported under names of their
    own, and what anybody has stored since the first of ``version``.

    Raises:
        StudioError: Label Studio refuses or is away.
    """
    total = 0
    found = store.versions(project)
    own = next((one for one in found if one.name == version), None)
    first = _time(own.first) if own else None
    for old in found:
        if old.name == version or own is None:
            continue
        if old.name == shown:
            why = "is shown"
        elif not _models(version) or _models(old.name) != _models(version):
            why = f"is not known to be an older one of {version}"
        elif first is None:
            why = f"may be newer: when the first of {version} was stored is not known"
        elif (last := _time(old.last)) is None or last >= first:
            why = f"has been stored after the first of {version}"
        else:
            while count := store.delete(project, old.name):
                total += count
            say(f"predictions of {old.name} removed")
            continue
        say(
            f"predictions of {old.name or 'no version'} stay, which {why}; "
            "ls-yolo predictions prune removes them"
        )
    return total


def _models(version: str) -> list[str]:
    return sorted(versions.models(version))


def _time(text: str) -> datetime | None:
    """A time of Label Studio's, of UTC where it names no zone; None: not known."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _save(clusters: Clusters, path: Path) -> None:
    # Without it groups only begin anew.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        clusters.save(path)
