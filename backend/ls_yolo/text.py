"""Words: the nearest spelling."""

from __future__ import annotations

import difflib


def nearest(word: str, words: list[str]) -> str:
    """A hint such as ``; did you mean 'weights'?``, or nothing where no word is near."""
    lower = {w.casefold(): w for w in words}
    close = difflib.get_close_matches(word.casefold(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""
