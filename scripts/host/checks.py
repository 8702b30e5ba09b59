"""One line of what `make preflight` shows."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, INSTALLABLE, STOP = "ok", "warning", "missing", "stop"


@dataclass(frozen=True)
class Check:
    """One line of the table. ``missing`` gets installed; ``stop`` is a person's matter."""

    name: str
    found: str
    needed: str
    state: str = OK
    fix: str = ""
