"""Secrets of projects: files name variables of the environment, such as ``${S3_SECRET}``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ls_yolo.config import ConfigError

HIDDEN = "(hidden)"
"""What stands for a secret that Label Studio has, in what people read."""

FILE = "secrets.env"
"""The file of variables, beside those of projects."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def reference(*words: str) -> str:
    """A reference to a variable whose name is made of ``words``."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(words)).strip("_").upper()
    return f"${{{name if name[:1].isalpha() else 'X_' + name}}}"


def read(text: str, taken: Collection[str] = ()) -> dict[str, str]:
    """The variables of a ``secrets.env``: ``NAME=value`` a line, the value exactly as it is
    written, quotes and ``$`` too; blank lines and those that begin with ``#`` are left out.

    taken: names that mean something else.

    Raises:
        ConfigError: a line has another form, or a name that is taken; no message shows a value.
    """
    found: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or not _NAME.fullmatch(name):
            faults.append(f"{FILE}:{number}: expected NAME=value, with letters, digits and _")
        elif name in taken:
            faults.append(f"{FILE}:{number}: {name} is a setting of ls-yolo; expected another name")
        else:
            found[name] = value
    if faults:
        raise ConfigError("\n".join(faults))
    return found


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
