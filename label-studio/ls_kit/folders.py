"""What a folder is, as this process sees it. The backend describes its own the same way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

LOOKED_AT = 2000
"""How many entries of a storage are looked at for a first file."""
SECONDS = 2.0
"""How long one is looked for, in seconds: a network's folder may be slow."""


def describe(folder: Path) -> dict[str, Any]:
    """``path``, ``error`` (empty: it can be listed), ``entries`` (how many) and ``digest`` of their
    names, equal wherever the same folder is mounted."""
    try:
        names = sorted(os.fsencode(path.name) for path in folder.iterdir())
    except OSError as error:
        return {"path": str(folder), "error": error.strerror or str(error), "entries": 0,
                "digest": ""}  # fmt: skip
    digest = hashlib.sha256(b"\0".join(names)).hexdigest()[:16]
    return {"path": str(folder), "error": "", "entries": len(names), "digest": digest}


def first_file(folder: Path) -> tuple[str, str]:
    """The path of a file below ``folder`` that can be read, and what is wrong: one is empty; both
    are where there is no file."""
    trouble: list[str] = []
    until = time.monotonic() + SECONDS
    for left, entry in zip(range(LOOKED_AT, -1, -1), _entries(str(folder), trouble), strict=False):
        if not left or time.monotonic() > until:
            trouble.append(f"no file was found among its first {LOOKED_AT} entries, or in time")
            break
        with contextlib.suppress(UnicodeEncodeError):
            entry.path.encode()
            try:
                if not entry.is_dir():
                    with Path(entry.path).open("rb") as file:
                        file.read(1)
                    return entry.path, ""
            except OSError as error:
                trouble.append(f"{entry.path}: {error.strerror}")
    return "", next(iter(trouble), "")


def _entries(folder: str, trouble: list[str]) -> Iterator[os.DirEntry[str]]:
    """What is in ``folder`` and below, as it comes: to sort it, all would have to be read first."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    yield from _entries(entry.path, trouble)
    except OSError as error:
        trouble.append(f"{folder}: {error.strerror}")


def disks(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """``path``, ``free`` and ``total`` in bytes of each folder that is there."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.append({"path": str(folder), "free": usage.free, "total": usage.total})
    return found
