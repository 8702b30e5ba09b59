"""Tasks are read, predicted and stored at the same time, each in threads of its own.

    reader -> batches -> predictors (several) -> rows -> writer

The queues between are short, so memory does not grow with the number of tasks. A request that
fails as a whole is taken apart: its tasks are asked for one by one while nothing else is under way,
so that the one that ends the backend is known for sure, and the rest goes on.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from ls_yolo.jobs.predicting import Answer, Away, Busy, Lost, Predicting, PredictingError
from ls_yolo.jobs.waiting import PATIENCE, Patience, Stopped
from ls_yolo.labelstudio.bulk import MOST_ROWS, Task

BATCH = 8
"""Tasks in a request."""
REQUESTS = 4
"""Requests at a time."""
FLUSH_SECONDS = 2.0
"""How long a prediction waits for others before it is stored: people see the first ones soon."""
BUSY_SECONDS = 600.0
"""How long a backend may have no room."""
LONE_TRIES = 2
"""How often a task may fail alone before it counts as failed."""
ALL_FAIL = 10
"""So many lone tasks in a row that fail without one that does not: then it is not the tasks."""
END_SECONDS = 5.0
"""How long a run that cannot go on waits for requests under way."""
STORE_SECONDS = 60.0
"""How long it then has to store what was predicted."""
_LOOK = 0.2
"""How often threads look whether the run ends, in seconds."""
_TICK = 0.25

T = TypeVar("T")
Answered = tuple[Task, Answer]


class Changed(PredictingError):
    """Another version answers than at the start: the run has to begin anew."""


@dataclass(frozen=True)
class Steps:
    """What the pipeline is made of.

    pages: the tasks to predict, in pages; the reader's thread iterates over it.
    store: stores what was predicted, `MOST_ROWS` at most; for the writer's thread.
    failed: is told of a task that could not be predicted, why, and whether it failed as a whole
        request, the backend's own end for example; for any thread.
    ready: returns when the services answer again; raises Away where they do not.
    """

    pages: Iterable[Sequence[Task]]
    store: Callable[[Sequence[Answered]], None]
    failed: Callable[[Task, str, bool], None]
    ready: Callable[[], None]


class Pipeline:
    """Predicts every task once.

    version: what must answer. size: tasks in a request. stop: set once the run ends.
    """

    def __init__(
        self,
        steps: Steps,
        predicting: Predicting,
        version: str,
        stop: threading.Event,
        size: int = BATCH,
        requests: int = REQUESTS,
        patience: float = PATIENCE,
    ) -> None:
        self._steps = steps
        self._predicting = predicting
        self._version = version
        self._stop = stop
        self._size = size
        self._patience = patience
        self._requests = requests
        self._gate = _Gate()
        self._in_a_row = 0  # lone tasks that failed; only one thread is alone at a time
        self._error: BaseException | None = None
        self._ended = 0.0  # when it was seen that the run ends
        self._lock = threading.Lock()
        self._batches: queue.Queue[Sequence[Task] | None] = queue.Queue(requests * 2)
        self._answers: queue.Queue[Sequence[Answered] | None] = queue.Queue(
            max(1, 2 * MOST_ROWS // size)
        )

    def run(self, tick: Callable[[], None] = lambda: None) -> None:
        """Returns when every task is predicted and stored, or has failed.

        Args:
            tick: called several times a second, by this thread.

        Raises:
            Changed, PredictingError, StudioError: the run cannot go on. What was predicted is
                stored, if Label Studio is there.
            KeyboardInterrupt: a person ends it; requests under way are left to themselves.
        """
        reader = self._thread(self._read, "tasks")
        predictors = [self._thread(self._work, f"predict-{n}") for n in range(self._requests)]
        writer = self._thread(self._write, "store")
        try:
            for thread in (reader, *predictors):
                self._join(thread, tick, END_SECONDS)
            # However it ended, what was predicted is stored; a Label Studio that hangs has an end.
            while writer.is_alive() and not self._late(STORE_SECONDS):
                try:
                    self._answers.put(None, timeout=_LOOK)
                    break
                except queue.Full:
                    tick()
            self._join(writer, tick, STORE_SECONDS)
        except BaseException:
            self._stop.set()  # a person does not wait for what is under way
            raise
        if self._error is not None:
            raise self._error

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # told by `run`, in the thread that people wait for
                with self._lock:
                    self._error = self._error or error
                self._stop.set()

        # Daemons: a request may take long, and who ends the run does not wait for it.
        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    # The threads.

    def _read(self) -> None:
        for page in self._steps.pages:
            for start in range(0, len(page), self._size):
                self._put(self._batches, page[start : start + self._size])
        for _ in range(self._requests):
            self._put(self._batches, None)

    def _work(self) -> None:
        while (batch := self._get(self._batches)) is not None:
            try:
                with self._gate.shared():
                    answers = self._ask(batch)
            except Lost as error:
                with self._gate.alone():
                    answers = self._one_by_one(batch, error)
            good = []
            for task, answer in answers:
                if answer.error:
                    self._steps.failed(task, answer.error, False)
                else:
                    good.append((task, answer))
            if good:
                self._put(self._answers, good)

    def _write(self) -> None:
        rows: list[Answered] = []
        due = 0.0
        while True:
            # Also once the run ends: what was predicted is not thrown away.
            more = self._next_answers(due - time.monotonic() if rows else None)
            if more:
                due = due if rows else time.monotonic() + FLUSH_SECONDS
                rows += more
            ended = more is None
            while rows and (len(rows) >= MOST_ROWS or ended or time.monotonic() >= due):
                self._steps.store(rows[:MOST_ROWS])
                rows = rows[MOST_ROWS:]
                due = time.monotonic() + FLUSH_SECONDS
            if ended:
                return

    def _next_answers(self, seconds: float | None) -> Sequence[Answered] | None:
        """What comes next; empty where nothing has within ``seconds``; None at the end."""
        try:
            if seconds is None:
                return self._answers.get()
            return self._answers.get(timeout=max(seconds, 0.001))
        except queue.Empty:
            return ()

    # Asking.

    def _ask(self, tasks: Sequence[Task]) -> list[Answered]:
        """The answers for ``tasks``; waits for a backend that is busy or away."""
        busy, away = Patience(self._stop, BUSY_SECONDS), Patience(self._stop, self._patience)
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                answers = self._predicting.predict(tasks)
                break
            except Busy as error:
                busy.wait(error)
            except Away as error:
                away.wait(error)
        for answer in answers:
            if answer.version != self._version:
                raise Changed(
                    f"{answer.version or 'nothing'} answers by now, {self._version} did at the "
                    "start; run it again, which predicts with what is there now"
                )
        self._in_a_row = 0
        return list(zip(tasks, answers, strict=True))

    def _one_by_one(self, tasks: Sequence[Task], error: Lost) -> list[Answered]:
        """The answers for ``tasks`` of a request that failed, while nothing else is asked."""
        found: list[Answered] = []
        for task in tasks:
            for _ in range(LONE_TRIES):
                self._steps.ready()
                try:
                    found += self._ask([task])
                    break
                except Lost as again:
                    error = again
            else:
                self._in_a_row += 1
                if self._in_a_row >= ALL_FAIL:
                    raise PredictingError(
                        f"{self._in_a_row} tasks in a row could not be predicted: {error}; it is "
                        "not the tasks. See the backend's log: make logs"
                    )
                self._steps.failed(task, str(error), True)
        return found

    # Neither queues nor threads hold up the end.

    def _join(self, thread: threading.Thread, tick: Callable[[], None], seconds: float) -> None:
        """Returns when ``thread`` has ended, or ``seconds`` after the run has."""
        while thread.is_alive() and not self._late(seconds):
            thread.join(_TICK)
            tick()

    def _late(self, seconds: float) -> bool:
        """Whether the run ended more than ``seconds`` ago."""
        if not self._stop.is_set():
            return False
        self._ended = self._ended or time.monotonic()
        return time.monotonic() > self._ended + seconds

    def _put(self, target: queue.Queue[T], item: T) -> None:
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                target.put(item, timeout=_LOOK)
                return
            except queue.Full:
                continue

    def _get(self, source: queue.Queue[T]) -> T:
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return source.get(timeout=_LOOK)
            except queue.Empty:
                continue


class _Gate:
    """Many at a time, or one alone, before which no more of the many are let in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
