"""Predictions for all tasks of a project that lack one of the current version.

What is stored in Label Studio is the truth: which tasks lack a prediction is asked anew, page by
page, so a run that was killed needs no memory of its own, and goes on where it was.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from ls_yolo.images.likeness import Clusters
from ls_yolo.jobs import fields, scores
from ls_yolo.jobs.pipeline import BATCH, REQUESTS, Answered, Pipeline, Steps
from ls_yolo.jobs.predicting import Predicting, Target
from ls_yolo.jobs.progress import Progress, State
from ls_yolo.jobs.quarantine import Failure, Quarantine
from ls_yolo.jobs.report import Report
from ls_yolo.jobs.waiting import patiently
from ls_yolo.labelstudio import label_config, versions
from ls_yolo.labelstudio.bulk import Calls, PlainStore, Row, Task, Where
from ls_yolo.labelstudio.client import Studio
from ls_yolo.results import Image

PAGE = 500
"""Tasks that are read by one request."""
PASSES = 3
"""How often the tasks are gone through at most: what failed in the first has another chance, since
a service may have been away just then."""
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
    """

    where: Where | None = None
    shard: tuple[int, int] | None = None
    retry: Retry = "nothing"
    fields: bool = False
    score: str = scores.DEFAULT
    folder: Path = Path("/data/models")

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
    missing: all tasks that lack a prediction now; failures: the first of those that failed.
    """

    total: int
    stored: int = 0
    present: int = 0
    gone: int = 0
    failed: int = 0
    left_out: int = 0
    missing: int = 0
    failures: Sequence[Failure] = ()
    state: State | None = None

    @property
    def unexplained(self) -> int:
        """Tasks without a prediction that came meanwhile, or that another run has under way."""
        return max(0, self.missing - self.failed - self.left_out)


@dataclass
class _Tally:
    """What a run keeps of its tasks: ids of those that failed, not more."""

    lost: set[int] = field(default_factory=set)  # whose request failed as a whole: not asked again
    failed: set[int] = field(default_factory=set)  # all that failed, in the last pass or before
    soft: int = 0  # of this pass, which another pass may mend
    left_out: int = 0


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
        self._columns: dict[str, None] = {}
        self._quarantine = Quarantine(
            options.folder,
            studio.url,
            f"{target.id}.{target.born}",
            version,
            secrets.token_hex(8),
            options.shard,
        )

    def look(self) -> Work:
        """What there is to do, by one query.

        Raises:
            StudioError: Label Studio refuses or is away.
        """
        options = self._options
        counts = self._ask(
            lambda: self._store.count(self._target.id, self._version, options.where, options.shard)
        )
        retry = options.retry
        left_out = 0 if retry == "all" else self._quarantine.kept(lost=retry == "own")
        return Work(counts.total, counts.missing, min(left_out, counts.missing))

    def run(self, work: Work, progress: Progress, requests: int = REQUESTS) -> Summary:
        """Predicts, and returns what was done.

        Raises:
            Changed: another version answers by now.
            PredictingError, StudioError: it cannot go on; what was predicted is stored.
        """
        if self._options.retry != "nothing":
            self._quarantine.clear(lost=self._options.retry == "all")
        summary = Summary(work.total)
        groups = self._options.folder / "likeness" / f"{self._target.id}.groups"
        clusters = Clusters.load(groups)
        highest = self._ask(lambda: self._store.highest(self._target.id))
        # A video may take all the time of a request.
        size = 1 if any(control.of_video for control in self._controls) else BATCH

        def store(answered: Sequence[Answered]) -> None:
            self._keep(answered, clusters, summary, progress)

        def failed(task: Task, why: str, lost: bool) -> None:
            self._fail(task.id, why, lost, progress)

        try:
            for number in range(PASSES):
                self._tally.soft = self._tally.left_out = 0
                steps = Steps(self._pages(highest), store, failed, self._ready)
                pipeline = Pipeline(
                    steps, self._predicting, self._version, self._stop, size, requests
                )
                pipeline.run(progress.tick)
                self._count(summary)
                if not summary.unexplained and not (self._tally.soft and number == 0):
                    break
            # Label Studio itself may have stored some of them meanwhile, for who opened a task.
            while self._ask(lambda: self._store.settle(self._target.id, self._version)):
                pass
            if self._options.fields and self._columns:
                fields.show(self._studio, self._target.id, self._columns)
        finally:
            self._stop.set()
            _save(clusters, groups)
            summary.state = progress.end()
            summary.failures = self._quarantine.failures(LISTED)
        if self._report:
            for failure in self._quarantine.failures():
                self._report.fail(failure.task, failure.reason)
        return summary

    def _ask(self, ask: Callable[[], T]) -> T:
        return patiently(ask, self._stop)

    def _count(self, summary: Summary) -> None:
        summary.missing = self.look().missing
        summary.failed = len(self._tally.failed)
        summary.left_out = self._tally.left_out

    def _pages(self, highest: int) -> Iterator[Sequence[Task]]:
        """The tasks to predict: those that are missing and were not given up."""
        after, options = 0, self._options
        while True:
            page = self._ask(
                lambda after=after: self._store.missing(  # type: ignore[misc]
                    self._target.id,
                    self._version,
                    after=after,
                    limit=PAGE,
                    where=options.where,
                    shard=options.shard,
                    highest=highest,
                )
            )
            out = self._quarantine.left_out([task.id for task in page.tasks])
            self._tally.left_out += len(out)
            yield [t for t in page.tasks if t.id not in out and t.id not in self._tally.lost]
            after = page.last
            if not after:
                return

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
                scores.score(answer.result, how),
                self._version,
                None if answer.likeness is None else clusters.of_hash(answer.likeness),
            )
            for task, answer in answered
        ]
        outcome = self._ask(lambda: self._store.store(project, rows))
        refused = dict(outcome.refused)
        bad = set(outcome.gone) | set(refused)
        kept = [row for row in rows if row.task not in bad]
        if self._options.fields and kept:
            values = {row.task: fields.counts(row.result, self._labels) for row in kept}
            self._ask(lambda: self._store.numbers(project, values))
            for found in values.values():
                self._columns.update(dict.fromkeys(found))
        for task, why in refused.items():
            self._fail(task, f"Label Studio refuses the prediction: {why}", True, progress)
        self._quarantine.forget([row.task for row in kept])
        with self._lock:
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
        progress.add(failed=int(new))


def replace(store: Store, project: int, version: str, say: Say) -> int:
    """Deletes the predictions of other versions of the kit's; returns how many.

    What people have imported under names of their own stays.

    Raises:
        StudioError: Label Studio refuses or is away.
    """
    total = 0
    for old in store.versions(project):
        if old.name == version or not versions.models(old.name):
            continue
        while count := store.delete(project, old.name):
            total += count
        say(f"predictions of {old.name} removed")
    return total


def show(studio: Studio, project: int, version: str) -> bool:
    """Has a project show the predictions of ``version``; returns whether it did not before.

    Raises:
        ApiError, httpx.HTTPError: Label Studio refuses or is away.
    """
    api: Any = studio.client
    found = api.projects.get(project)
    if found.model_version == version and found.show_collab_predictions:
        return False
    api.projects.update(project, model_version=version, show_collab_predictions=True)
    return True


def _save(clusters: Clusters, path: Path) -> None:
    # Without it groups only begin anew.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        clusters.save(path)
