"""Secrets of projects: files name variables of the environment, such as ``${S3_SECRET}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HIDDEN = "(hidden)"
"""What stands for a secret that Label Studio has, in what people read."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


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
        """What ``text`` stands for: itself, with the values of the variables that it refers to, as
        in ``Bearer ${TOKEN}``; None where one is unset or empty."""
        values = {name: self._environment.get(name, "") for name in _REFERENCE.findall(text)}
        self._given.update(filter(None, values.values()))
        if not all(values.values()):
            return None
        return _REFERENCE.sub(lambda found: values[found[1]], text)

    def unset(self, texts: Iterable[str]) -> list[str]:
        """The variables that ``texts`` refer to and that are not there."""
        names = {name for text in texts for name in _REFERENCE.findall(text)}
        return sorted(name for name in names if not self._environment.get(name))

    def scrub(self, text: str) -> str:
        """``text`` without the secrets that were given away."""
        for value in sorted(self._given, key=len, reverse=True):
            text = text.replace(value, HIDDEN)
        return text
