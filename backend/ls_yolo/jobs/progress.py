"""How far bulk work is: a bar on a terminal, JSON lines elsewhere, or lines for people."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TextIO

LINE_SECONDS = 5.0
"""How often a line of JSON is written."""
WINDOW = 60.0
"""Over how many of the last seconds the rate is taken."""


@dataclass(frozen=True)
class State:
    """How far it is. done: tasks that have a prediction stored by now, failures not among them;
    total: tasks to do; rate: tasks a second lately; left_s: seconds left at that rate, if known."""

    done: int
    total: int
    failed: int
    rate: float
    left_s: int | None


class Progress:
    """Counts tasks; any thread may add. `tick` shows, in the thread that calls it.

    total: tasks to do. On a terminal ``out`` gets a bar, else a JSON object a line, or with
    ``text`` a line for people. ``listener`` is told each state that is written.
    """

    def __init__(
        self,
        total: int,
        title: str,
        out: TextIO | None = None,
        listener: Callable[[State], None] = lambda state: None,
        text: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title = title
        self._text = text
        self._total = total
        self._out = out if out is not None else sys.stderr
        self._listener = listener
        self._clock = clock
        self._lock = threading.Lock()
        self._done = self._failed = 0
        self._began = clock()
        self._seen: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._written = self._began - LINE_SECONDS + 1  # the first line after a second
        self._bar = _Bar(title, total, self._out) if self._out.isatty() else None

    def add(self, done: int = 0, failed: int = 0) -> None:
        """Counts tasks that are done, and such that failed."""
        with self._lock:
            self._done += done
            self._failed += failed

    @property
    def state(self) -> State:
        """How far it is now."""
        with self._lock:
            done, failed = self._done, self._failed
        now = self._clock()
        while len(self._seen) > 1 and self._seen[1][0] <= now - WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        rate = (done + failed - before) / (now - then) if now > then else 0.0
        # A task that came meanwhile must not make it less than nothing.
        left = max(0, self._total - done - failed)
        return State(
            done,
            max(self._total, done + failed),
            failed,
            round(rate, 1),
            round(left / rate) if rate else None,
        )

    def tick(self) -> None:
        """Shows how far it is, unless it was shown only just; called several times a second."""
        now = self._clock()
        if now - self._seen[-1][0] >= 1:
            with self._lock:
                self._seen.append((now, self._done + self._failed))
        if self._bar:
            self._bar.show(self.state)
        if now - self._written >= LINE_SECONDS:
            self._written = now
            self._write()

    def end(self) -> State:
        """Shows the last state, and takes the bar away."""
        if self._bar:
            self._bar.show(self.state)
            self._bar.close()
        self._write()
        return self.state

    def _write(self) -> None:
        state = self.state
        if self._text and not self._bar:
            if state.done:  # where nothing was done there is nothing to tell
                print(self._line(state), file=self._out, flush=True)
        elif not self._bar:
            print(json.dumps(asdict(state)), file=self._out, flush=True)
        self._listener(state)

    def _line(self, state: State) -> str:
        left = "" if state.left_s is None else f", {_clock(state.left_s)} left"
        failed = f", {state.failed} failed" if state.failed else ""
        return (
            f"{self._title}: {state.done} of {state.total} tasks have predictions{failed} "
            f"({state.rate:.1f} a second{left})"
        )


class _Bar:
    """The bar of a terminal."""

    def __init__(self, title: str, total: int, out: TextIO) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._rich = Progress(
            TextColumn(escape(title)),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f}/s"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[failed]} failed"),
            console=Console(file=out),
            auto_refresh=False,
        )
        self._task = self._rich.add_task("", total=total, rate=0.0, left="", failed=0)
        self._rich.start()

    def show(self, state: State) -> None:
        left = "" if state.left_s is None else _clock(state.left_s) + " left"
        self._rich.update(
            self._task,
            completed=state.done + state.failed,
            total=state.total,
            rate=state.rate,
            left=left,
            failed=state.failed,
        )
        self._rich.refresh()

    def close(self) -> None:
        self._rich.stop()


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
