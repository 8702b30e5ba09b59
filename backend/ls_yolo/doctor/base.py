"""Checks, what they find, and how they are run: each alone, so that none hides another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Generic, TypeVar

Facts = TypeVar("Facts")
COMPLETE = "ls-yolo doctor: all checks are made"
"""The last line, on standard error, of a run that prints JSON: that it did not just end."""


class Level(IntEnum):
    """How bad it is. The exit code of a run is that of the worst."""

    SKIPPED = -1
    OK = 0
    WARNING = 1
    FAILED = 2

    @property
    def word(self) -> str:
        """What stands before a line."""
        return {"SKIPPED": "skip", "OK": "ok", "WARNING": "warn", "FAILED": "FAIL"}[self.name]


@dataclass(frozen=True)
class Finding:
    """What a check says: what was ``found`` and the ``fix`` (empty where all is well).

    ``subject``: of what, where a check looks at several things. ``unsure``: it may look otherwise
    from another place.
    """

    level: Level
    found: str
    fix: str = ""
    subject: str = ""
    unsure: bool = False


@dataclass(frozen=True)
class Line:
    """A finding of the check ``name``, which took ``seconds``."""

    name: str
    finding: Finding
    seconds: float = 0.0

    def __str__(self) -> str:
        found = self.finding
        of = f", {found.subject}" if found.subject else ""
        fix = f"; {found.fix}" if found.fix else ""
        return " ".join(f"{found.level.word:4} {self.name}{of}: {found.found}{fix}".split("\n"))

    def as_json(self) -> dict[str, Any]:
        found = self.finding
        return {
            "check": self.name,
            "subject": found.subject,
            "level": found.level.name.lower(),
            "found": found.found,
            "fix": found.fix,
            "seconds": round(self.seconds, 3),
        }


class Unavailable(Exception):
    """What a check needs is not there; the message says what. Another check is red for it."""


class Faulty(Unavailable):
    """A service answers, but not what it should: a fault of its own, which no other check tells."""


def ok(found: str, subject: str = "") -> Finding:
    return Finding(Level.OK, found, "", subject)


def warning(found: str, fix: str, subject: str = "") -> Finding:
    return Finding(Level.WARNING, found, fix, subject)


def failed(found: str, fix: str, subject: str = "", unsure: bool = False) -> Finding:
    return Finding(Level.FAILED, found, fix, subject, unsure)


@dataclass(frozen=True)
class Check(Generic[Facts]):
    """A look at one thing that can be wrong. ``look`` yields findings: faults, or one that is ok.

    It raises `Unavailable` where it cannot look, `Faulty` where that is a fault; anything else that
    it raises is a fault of its own, and is named.
    """

    name: str
    look: Callable[[Facts], Iterable[Finding]]

    def run(self, facts: Facts) -> Iterator[Line]:
        """Its lines; at least one."""
        began = time.monotonic()
        found: list[Finding] = []
        try:
            found += self.look(facts)
        except Faulty as error:
            found.append(failed(str(error), "look at the log of that service: make logs"))
        except Unavailable as error:
            found.append(Finding(Level.SKIPPED, f"not looked at: {error}"))
        except Exception as error:  # the others go on
            found.append(
                failed(f"the check itself failed: {type(error).__name__}: {error}",
                       "look at the log of the service that it asks: make logs")
            )  # fmt: skip
        took = time.monotonic() - began
        # What is ok is said of what has no fault.
        faulty = {finding.subject for finding in found if finding.level > Level.OK}
        for finding in found or [ok("nothing to look at")]:
            of_all = not finding.subject and bool(faulty)
            if finding.level == Level.OK and (of_all or finding.subject in faulty):
                continue
            yield Line(self.name, finding, took)


Look = TypeVar("Look", bound=Callable[..., Iterable[Finding]])


class Checks(list[Check[Facts]]):
    """Checks in the order in which they are run; a function becomes one by `add`."""

    def add(self, name: str) -> Callable[[Look], Look]:
        """Makes a function the check ``name``."""

        def added(look: Look) -> Look:
            self.append(Check(name, look))
            return look

        return added

    def run(self, facts: Facts, only: Sequence[str] = ()) -> Iterator[Line]:
        """The lines of all checks, or of those named ``only``, as each is done."""
        for check in self:
            if not only or check.name in only:
                yield from check.run(facts)


def worst(lines: Iterable[Line]) -> Level:
    """The level of a run."""
    return max((line.finding.level for line in lines), default=Level.OK)


def exit_code(lines: Iterable[Line]) -> int:
    """0: all is well. 1: warnings. 2: something is wrong."""
    return max(0, int(worst(lines)))


def of_subject(subject: str, findings: Iterable[Finding]) -> list[Finding]:
    """The same findings, of ``subject``."""
    return [replace(finding, subject=subject) for finding in findings]
