"""A backup as a file of a folder: what is in it, what it is called, and how many of them stay."""

from __future__ import annotations

import datetime
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lib import archive, commands, files, settings
from lib.cli import UserError, say
from lib.parts import MADE_AGAIN, Part
from lib.progress import Progress, readable

SETTINGS = "settings/.env"
DUMP = "database/label-studio.dump"
SQLITE = "label-studio/label_studio.sqlite3"
KEYS = "label-studio/.env"
"""Label Studio's own: what signs its sessions and tokens."""
ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "label-studio": (".env",),
    "backend": MADE_AGAIN,
    "models": ("models.yaml",),
}
"""What is not saved of the chart's volumes, whose environment and ConfigMaps have it, or nobody."""
IN_SETTINGS = ("LABEL_STUDIO_USERNAME", "LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY",
               "BASIC_AUTH_USER", "BASIC_AUTH_PASS")  # fmt: skip
POSTGRES, LITE = "PostgreSQL", "SQLite"

Dump = Callable[[Path], AbstractContextManager[IO[bytes]]]
"""Makes a dump of PostgreSQL's database when it is wanted; there is a folder with room for it."""


@dataclass(frozen=True)
class Source:
    """What is saved.

    project: what its archives are called by.
    kit, label_studio: the versions of both.
    settings: as ``.env`` has them.
    dump: of PostgreSQL; none with SQLite, whose file is among Label Studio's.
    size: bytes of the dump, about.
    more: files of the first part that are not in it, by their names in the archive.
    """

    project: str
    kit: str
    label_studio: str
    settings: bytes
    parts: Sequence[Part]
    dump: Dump | None = None
    size: int = 0
    more: Mapping[str, bytes] = field(default_factory=dict)

    def about(self, now: datetime.datetime) -> dict[str, Any]:
        """What the archive says of itself."""
        return {
            "made": now.isoformat(timespec="seconds"),
            "project": self.project,
            "kit": self.kit,
            "label_studio": self.label_studio,
            "database": POSTGRES if self.dump else LITE,
            "parts": list(dict.fromkeys(part.name for part in self.parts)),
        }

    def name(self, now: datetime.datetime, lock: archive.Lock) -> str:
        """That of the file."""
        return f"{self.project}-{now:%Y%m%dT%H%M%SZ}.tar.gz{lock.ending}"

    def total(self) -> int:
        """Bytes that there are to save."""
        return sum(part.size() for part in self.parts) + self.size

    def write(
        self,
        out: IO[bytes],
        now: datetime.datetime,
        lock: archive.Lock,
        bar: Progress,
        folder: Path,
    ) -> None:
        """
        folder: has room for a dump.

        Raises:
            UserError: something cannot be read, or what encrypts failed.
        """
        writer = archive.Writer(out, self.about(now), lock)
        try:
            _add(writer, SETTINGS, io.BytesIO(self.settings), len(self.settings))
            # Before the files: an upload that it names was there before. Its size must be known.
            if self.dump:
                with self.dump(folder) as dump:
                    size = os.fstat(dump.fileno()).st_size
                    _add(writer, DUMP, _Counted(dump, bar, "database"), size)
            for name, data in self.more.items():
                _add(writer, name, io.BytesIO(data), len(data))
            names = [part.name for part in self.parts]
            # Those of one name after one another: whoever restores them has one at a time.
            for part in sorted(self.parts, key=lambda part: names.index(part.name)):
                _add_part(writer, part, bar)
            bar.close()
            writer.finish()
        finally:
            writer.kill()


# Where settings are no file


def settings_text(environ: Mapping[str, str], postgres: bool) -> bytes:
    """The settings as ``.env`` has them, so that the archive is one for Docker Compose too."""
    values = {name: environ[name] for name in IN_SETTINGS if name in environ}
    if postgres:
        values["POSTGRES"] = "1"
    return _lines(values)


def keys(secret_key: str) -> dict[str, bytes]:
    """The file that has what signs sessions and tokens."""
    return {KEYS: _lines({"SECRET_KEY": secret_key})} if secret_key else {}


def _lines(values: Mapping[str, str]) -> bytes:
    return "".join(f"{n}={settings.quote_env(v)}\n" for n, v in values.items()).encode()


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _add(writer: archive.Writer, name: str, data: archive.Readable, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    writer.add(member, data)


def _add_part(writer: archive.Writer, part: Part, bar: Progress) -> None:
    process = subprocess.Popen(
        part.command("save"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    said = commands.Reader(process.stderr)
    try:
        assert process.stdout is not None
        try:
            writer.add_tar(part.name, _Counted(process.stdout, bar, part.name))
        except archive.ArchiveError:
            # What it says itself tells more.
            if not process.wait():
                raise
        if process.wait():
            raise UserError(f"{part.name}: {said.text() or f'exit code {process.returncode}'}")
    finally:
        process.kill()
        process.wait()


class _Counted:
    """A file that tells a progress bar what is read of it."""

    def __init__(self, file: IO[bytes], bar: Progress, what: str) -> None:
        self.file, self.bar, self.what = file, bar, what

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bar.advance(len(data), self.what)
        return data


# In a folder


def save(source: Source, folder: Path, lock: archive.Lock, keep: int = 0) -> Path:
    """Makes an archive in a folder.

    keep: how many of this installation stay; 0: all.

    Returns:
        The archive.

    Raises:
        UserError: it cannot be made; nothing new is there then.
    """
    folder = ready(folder, source.project)
    total = source.total()
    check_space(folder, total + source.size)
    moment = now()
    target = folder / source.name(moment, lock)
    with files.appearing(target) as out:
        source.write(out, moment, lock, Progress(total), folder)
    remove_old(folder, source.project, keep)
    return target


def ready(folder: Path, project: str) -> Path:
    """The folder, without what a run that was killed left in it."""
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}. Name another folder") from None
    stamp = "[0-9]" * 8 + "T" + "[0-9]" * 6 + "Z"
    for left in folder.glob(f".{project}-{stamp}.tar.gz*.part"):
        if files.is_left(left):
            left.unlink(missing_ok=True)
    return folder


def check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {readable(free)} are free, up to {readable(needed)} are needed. Make room, "
            "or name another folder"
        )


def old(names: Sequence[str], project: str, keep: int) -> list[str]:
    """Those of an installation's archives that go, the oldest first."""
    form = re.compile(rf"{re.escape(project)}-\d{{8}}T\d{{6}}Z\.tar\.gz(\.gpg|\.age)?")
    return sorted(name for name in names if form.fullmatch(name))[:-keep] if keep else []


def remove_old(folder: Path, project: str, keep: int) -> None:
    for name in old([path.name for path in folder.iterdir()], project, keep):
        (folder / name).unlink()
        say(f"{folder / name}: removed, {keep} newer ones are there")
