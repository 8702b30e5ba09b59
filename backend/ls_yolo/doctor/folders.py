"""What a folder is, as this process sees it. Label Studio describes its own the same way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


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


def disks(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """``path``, ``free`` and ``total`` in bytes of each folder that is there."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            found.append({"path": str(folder), "free": usage.free, "total": usage.total})
    return found
