"""What a folder is, as this process sees it. The backend describes its own the same way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LOOKED_AT = 2000
"""How many entries of a storage are looked at for a first file."""


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
    trouble = ""
    left = LOOKED_AT

    def failed(error: OSError) -> None:
        nonlocal trouble
        trouble = trouble or f"{error.filename}: {error.strerror}"

    for where, folders, names in os.walk(folder, onerror=failed):
        folders.sort()
        for name in sorted(names):
            left -= 1
            path = os.path.join(where, name)  # noqa: PTH118 # names may be no UTF-8
            with contextlib.suppress(UnicodeEncodeError):
                path.encode()
                try:
                    with Path(path).open("rb") as file:
                        file.read(1)
                    return path, ""
                except OSError as error:
                    trouble = trouble or f"{path}: {error.strerror}"
            if left <= 0:
                return "", trouble
    return "", trouble


def disks(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """``path``, ``free`` and ``total`` in bytes of each folder that is there."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.append({"path": str(folder), "free": usage.free, "total": usage.total})
    return found
