"""Words: the nearest spelling, a list of names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

MOST = 12
"""How many names are listed before "and N more"."""


def nearest(word: str, words: list[str]) -> str:
    """A hint such as ``; did you mean 'weights'?``, or nothing where no word is near."""
    lower = {w.casefold(): w for w in words}
    close = difflib.get_close_matches(word.casefold(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def some(names: Sequence[str], most: int = MOST) -> str:
    """``names`` in one line, the first ``most`` of them, or ``none``."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + rest
