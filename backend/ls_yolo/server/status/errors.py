"""What went wrong of late: the log's warnings and errors, each kind once, with its fix."""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from ls_yolo.redaction import Redactor
from ls_yolo.server.status import fixes

KEPT = 20
"""Kinds of errors that are kept; the one that has not come up for longest goes first."""
LONGEST = 1000
"""The most characters of a message."""


@dataclass(frozen=True)
class Seen:
    """An error that came up ``count`` times.

    message: the last of its kind, without secrets. first, last: when, as `time.time`.
    fix: what to do.
    """

    level: str
    message: str
    fix: str
    count: int
    first: float
    last: float


class LastErrors(logging.Handler):
    """Keeps the last warnings and errors of the log, in memory. ``clean``: takes secrets out;
    unless given, what looks like one.

    A thousand tasks whose images are missing are one line, with the last of them.
    """

    def __init__(self, clean: Callable[[str], str] | None = None) -> None:
        super().__init__(logging.WARNING)
        self._clean = clean or Redactor()
        self._guard = threading.Lock()
        self._seen: OrderedDict[tuple[str, ...], Seen] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # a record whose arguments do not fit
            message = str(record.msg)
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        kind = str(getattr(record, "fields", {}).get("kind", ""))
        text = self._clean(" ".join(message.split()))
        # Of a known kind the statement that logged it is enough; else each text is one of its own.
        gist = str(record.msg) if kind else re.sub(r"[0-9.]+", "0", text)
        key = record.name, kind, gist
        short = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
        fix = fixes.of(kind, record.name)
        with self._guard:
            old = self._seen.pop(key, None)
            new = Seen(record.levelname, short, fix, 1, record.created, record.created)
            self._seen[key] = replace(new, count=old.count + 1, first=old.first) if old else new
            while len(self._seen) > KEPT:
                self._seen.popitem(last=False)

    def all(self) -> list[Seen]:
        """What is kept, the last first."""
        with self._guard:
            return list(reversed(self._seen.values()))
