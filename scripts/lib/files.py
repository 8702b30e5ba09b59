"""Files that are checked by hash and come into being whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from lib.cli import UserError

# What a folder answers and a network never does.
NOT_WRITTEN = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing_into(folder: Path, setting: str = "") -> Iterator[None]:
    """Tells a folder that takes nothing from an index that gives nothing: both are OSError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_WRITTEN:
            raise
        other = f"name another folder: {setting} in .env" if setting else "move this repository"
        raise UserError(
            f"{folder}: cannot be written: {error.strerror}. Make room, or make it yours "
            f'(sudo install -d -o "$USER" {shlex.quote(str(folder))}), or {other}'
        ) from error
