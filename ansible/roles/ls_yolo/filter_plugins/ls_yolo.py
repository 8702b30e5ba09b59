"""Filters of the role: how ``.env`` spells values, by the kit's own scripts; folders; networks."""

from __future__ import annotations

import functools
import importlib
import ipaddress
import posixpath
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[4] / "scripts"


@functools.cache
def kit_settings() -> ModuleType:
    sys.path.append(str(SCRIPTS))
    return importlib.import_module("lib.settings")


def env_lines(settings: Mapping[str, Any]) -> list[str]:
    """The settings as lines of ``.env``: true and false in small letters."""
    quote = kit_settings().quote_env
    return [
        f"{name}={quote(str(value).lower() if isinstance(value, bool) else str(value))}"
        for name, value in settings.items()
    ]


def env_values(text: str) -> dict[str, str]:
    """The settings that the text of an ``.env`` gives."""
    values: dict[str, str] = kit_settings().parse_env(text)
    return values


def entangled(folders: Iterable[str], kit: str) -> list[str]:
    """Those of ``folders`` that lie in ``kit`` or hold it. They are absolute, or relative to it."""

    def one_in_the_other(folder: str) -> bool:
        paths = posixpath.normpath(kit), posixpath.normpath(posixpath.join(kit, folder))
        return posixpath.commonpath(paths) in paths

    return [folder for folder in folders if one_in_the_other(folder)]


def not_ipv4(texts: Iterable[object]) -> list[str]:
    """Those that are neither an IPv4 address nor an IPv4 network."""
    wrong = []
    for text in texts:
        try:
            ipaddress.IPv4Network(str(text))
        except ValueError:
            wrong.append(str(text))
    return wrong


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {f.__name__: f for f in (env_lines, env_values, entangled, not_ipv4)}
