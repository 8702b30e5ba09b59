"""Files: their hashes, and writing them whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Makes ``content`` the file ``path``: whoever reads it meanwhile sees the old or the new one.

    mode: permissions of the new file.

    Raises:
        OSError: it cannot be written; what was there is as before.
    """
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
