"""A line that shows how far long work is, where a person looks at a terminal."""

from __future__ import annotations

import sys
import time
from typing import IO


def readable(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit in ("B", "kB") or size >= 100 else f"{size:.1f} {unit}"


class Progress:
    """Of ``total`` bytes, as far as it is known before."""

    def __init__(self, total: int, out: IO[str] | None = None) -> None:
        self.total, self.done, self.shown = total, 0, 0.0
        self.out = out or sys.stderr
        self.visible = self.out.isatty()

    def advance(self, size: int, what: str) -> None:
        self.done += size
        now = time.monotonic()
        if not self.visible or now - self.shown < 0.2:
            return
        self.shown = now
        share = min(1.0, self.done / self.total) if self.total else 1.0
        bar = "#" * round(30 * share)
        print(
            f"\r[{bar:30}] {share:4.0%} {readable(self.done)} {what[:30]:30}", end="", file=self.out
        )
        self.out.flush()

    def close(self) -> None:
        if self.shown:
            print("\r" + " " * 80 + "\r", end="", file=self.out, flush=True)
