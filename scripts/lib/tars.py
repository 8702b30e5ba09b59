"""A tar with the hash of each of its files, some of which are streams that end nobody knows where.

Nothing is compressed here: what is worth it comes compressed, and is not laid aside for it.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20


def header(name: str, size: int, mode: int, modified: int) -> bytes:
    """What stands before a file; as long for any size."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, mode, modified
    return member.tobuf(tarfile.GNU_FORMAT)


class Writer:
    """Writes into a file that can be gone back in: a size stands before what is of that size."""

    def __init__(
        self, out: BinaryIO, folder: str, advance: Callable[[int, str], None] = lambda *_: None
    ) -> None:
        """
        folder: what all files lie in.
        advance: is told how many bytes were written, and of which file.
        """
        self.out, self.folder, self.advance = out, folder, advance
        self.files: dict[str, dict[str, int | str]] = {}
        self.made = int(time.time())

    def add(self, name: str, source: BinaryIO, mode: int = 0o644) -> None:
        """Adds a file, which is all that can be read from ``source``."""
        at = self.out.tell()
        self.out.write(header(f"{self.folder}/{name}", 0, mode, self.made))
        size, digest = 0, hashlib.sha256()
        while block := source.read(CHUNK):
            self.out.write(block)
            digest.update(block)
            size += len(block)
            self.advance(len(block), name)
        self.out.write(b"\0" * (-size % tarfile.BLOCKSIZE))
        end = self.out.tell()
        self.out.seek(at)
        self.out.write(header(f"{self.folder}/{name}", size, mode, self.made))
        self.out.seek(end)
        self.files[name] = {"size": size, "sha256": digest.hexdigest()}

    def add_file(self, name: str, path: Path, mode: int = 0o644) -> None:
        with path.open("rb") as file:
            self.add(name, file, mode)

    def add_text(self, name: str, text: str) -> None:
        self.add(name, io.BytesIO(text.encode()))

    def close(self) -> None:
        """Writes the end, without which tar calls a file cut off."""
        self.out.write(b"\0" * 2 * tarfile.BLOCKSIZE)
