"""Secrets of projects: files name variables of the environment, such as ``${S3_SECRET}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HIDDEN = "(hidden)"
"""What stands for a secret that Label Studio has, in what people read."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def name_of(text: str) -> str:
    """The variable that ``text`` refers to; empty where it is plain text."""
    found = _REFERENCE.fullmatch(text)
    return found[1] if found else ""


def reference(*words: str) -> str:
    """A reference to a variable whose name is made of ``words``."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(words)).strip("_").upper()
    return f"${{{name if name[:1].isalpha() else 'X_' + name}}}"


class Secrets:
    """What the environment holds. It remembers what it gave away, so that no message shows it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._given: set[str] = set()

    def get(self, text: str) -> str | None:
        """What ``text`` stands for: the variable's value, None where it is unset or empty; plain
        text is itself."""
        name = name_of(text)
        if not name:
            return text
        value = self._environment.get(name) or None
        if value:
            self._given.add(value)
        return value

    def unset(self, texts: Iterable[str]) -> list[str]:
        """The variables that ``texts`` refer to and that are not there."""
        return sorted({name for text in texts if (name := name_of(text)) and not self.get(text)})

    def scrub(self, text: str) -> str:
        """``text`` without the secrets that were given away."""
        for value in sorted(self._given, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text
