"""Bulk work under way: what its runs say of themselves, kept for a while and nowhere else."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from werkzeug.exceptions import BadRequest

FORGOTTEN = 600.0
"""Seconds after its last report that a run is forgotten."""
SILENT = 60.0
"""Seconds without a report after which a run is shown as silent: it was killed, most likely."""
KEPT = 200
"""Runs that are kept; the one silent for longest goes first."""
STATES = ("running", "done", "failed")

_TEXT = {"type": "string", "minLength": 1, "maxLength": 200}
_COUNT = {"type": "integer", "minimum": 0, "maximum": 10**12}
REPORT: dict[str, Any] = {
    "type": "object",
    "required": ["project", "version", "done", "total"],
    "properties": {
        "project": {**_COUNT, "description": "The project's id in Label Studio"},
        "title": {**_TEXT, "description": "The project's title"},
        "version": {**_TEXT, "description": "The version that predicts"},
        "done": {**_COUNT, "description": "Tasks that have a prediction by now, of this run"},
        "total": {**_COUNT, "description": "Tasks that the run is for"},
        "failed": {**_COUNT, "default": 0, "description": "Tasks that could not be predicted"},
        "rate": {
            "type": "number",
            "minimum": 0,
            "maximum": 10**9,
            "default": 0,
            "description": "Tasks a second, of late",
        },
        "shard": {
            "type": "string",
            "pattern": "^[0-9]{1,6}/[0-9]{1,6}$",
            "description": "I/N, from 0/N to N-1/N; left out where there is one",
        },
        "host": {**_TEXT, "description": "Where it runs"},
        "state": {"enum": list(STATES), "default": "running"},
    },
}
"""What a run reports, every few seconds and at its end."""
_VALIDATOR = Draft202012Validator(REPORT)


@dataclass(frozen=True)
class Job:
    """A run of bulk work, as it reported last.

    done, total, failed: tasks. rate: tasks a second. silent: seconds since its report.
    """

    project: int
    version: str
    done: int
    total: int
    failed: int = 0
    rate: float = 0.0
    title: str = ""
    shard: str = ""
    host: str = ""
    state: str = "running"
    silent: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds that it still takes, at its rate; None where that cannot be told."""
        if self.state != "running" or self.rate <= 0:
            return None
        return max(self.total - self.done - self.failed, 0) / self.rate

    @property
    def lost(self) -> bool:
        """Whether it should have said something by now."""
        return self.state == "running" and self.silent > SILENT


class Jobs:
    """Runs of bulk work. A run is known by its project, version, shard and host.

    clock: seconds, as `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._reports: dict[tuple[Any, ...], tuple[float, Mapping[str, Any]]] = {}

    def report(self, body: Any) -> None:
        """Takes what a run says of itself; see `REPORT`.

        Raises:
            BadRequest: it is not of that form; the message says where.
        """
        found = best_match(_VALIDATOR.iter_errors(body))
        if found is not None:
            raise BadRequest(f"{found.json_path.removeprefix('$.')}: {found.message:.300}")
        if math.isnan(body.get("rate", 0)):  # Python's JSON has it; no bound refuses it
            raise BadRequest("rate: found NaN, expected a number from 0")
        key = tuple(body.get(name, "") for name in ("project", "version", "shard", "host"))
        known = {name: body[name] for name in REPORT["properties"] if name in body}
        with self._lock:
            self._reports.pop(key, None)
            self._reports[key] = self._clock(), known
            while len(self._reports) > KEPT:
                del self._reports[next(iter(self._reports))]

    def all(self) -> list[Job]:
        """The runs that are not forgotten, by project and shard."""
        now = self._clock()
        with self._lock:
            for key, (at, _) in list(self._reports.items()):
                if now - at > FORGOTTEN:
                    del self._reports[key]
            rows = list(self._reports.values())
        found = [Job(**said, silent=now - at) for at, said in rows]
        return sorted(found, key=lambda job: (job.project, job.version, _number(job.shard)))


def _number(shard: str) -> int:
    return int(shard.partition("/")[0] or 0)
