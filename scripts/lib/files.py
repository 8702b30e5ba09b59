"""Files that are checked by hash and come into being whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lib import volume
from lib.cli import UserError

# What a folder answers and a network never does.
NOT_WRITTEN = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
)  # fmt: skip


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
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


def place(
    data: bytes, sha256: str, target: Path, what: str, mode: int = 0o644, setting: str = ""
) -> None:
    """Puts ``data`` at ``target``, whole and with the right hash or not at all.

    Args:
        data: the content of the file.
        sha256: what its SHA-256 must be, in hexadecimal.
        target: where it goes; folders above it are made.
        what: its name in the message about another hash.
        mode: its permissions.
        setting: the setting that names the folder, if one does.

    Raises:
        UserError: its hash is another one, or the folder takes nothing.
    """
    part = target.with_name(f".{target.name}.part")
    with writing_into(target.parent, setting):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            if (found := sha256_of(part)) != sha256:
                raise UserError(f"{what}: found sha256 {found}, expected {sha256}")
            part.chmod(mode)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Writes ``path`` with mode 0600 in one step: never half, never readable by others."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # is 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_left(part: Path) -> bool:
    """Whether nobody writes that file of ``appearing`` any more: its run was killed."""
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def appearing(target: Path) -> Iterator[BinaryIO]:
    """A new file, to write and to read again, that its owner alone can read. It has its name once
    all of it is on the disk; until then it is ``.NAME.part``.
    """
    part = target.with_name(f".{target.name}.part")
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as long as it is written; see is_left
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    volume.sync_folder(target.parent)
