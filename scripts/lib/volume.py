"""The files of a folder, out as a tar and back in; the standard library alone.

Containers are given this file's text (``python3 -c``) and see one volume, so that what they save
and restore belongs to the user of their image; the kit itself imports it for folders of this host.

    volume.py save FOLDER [--leave-out NAME]... [--follow]   a tar on standard output
    volume.py size FOLDER [--leave-out NAME]... [--follow]   how many bytes that would be, about
    volume.py stage FOLDER                                   a tar from standard input, beside all
    volume.py commit FOLDER [--keep]                         what is staged, in the place of all
    volume.py discard FOLDER                                 what is staged, away

``commit`` may be killed anywhere: run again, it goes on. Until it is begun, all is as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import sys
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

STAGED = ".restore"
"""The folder, in the one that is restored, of what is staged and of what gives way to it."""
REPLACED = ".before-restore"
"""The folder of what gave way, where it is kept."""
DONE = ".restore.done"
"""What is being removed, after all else is done."""
SNAPSHOT = ".backup.sqlite3"
"""A database as it is saved. One that is found was left by a run that was killed."""
OURS = frozenset({STAGED, REPLACED, DONE, SNAPSHOT, ".start.lock"})
_SQLITE = b"SQLite format 3\0"
LOGS = ("-wal", "-shm", "-journal")
_OUT, _IN = "out", "in"


class VolumeError(Exception):
    """What stands in the way, for people."""


# What there is


def entries(
    folder: Path, leave_out: Collection[str] = (), follow: bool = False
) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Names (from ``folder``, with slashes), paths and states of all below; folders before what is
    in them. What vanishes meanwhile is not there.

    leave_out: names, from ``folder``, of what is not wanted.
    follow: links are what they lead to; one that leads nowhere is an error.

    Raises:
        VolumeError: a link leads nowhere, or in a circle.
    """
    yield from _below(folder, "", {*OURS, *leave_out}, follow, ())


def _below(
    folder: Path, prefix: str, without: Collection[str], follow: bool, above: tuple[str, ...]
) -> Iterator[tuple[str, Path, os.stat_result]]:
    above = (*above, os.path.realpath(folder))
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    # A database's log is in its snapshot.
    logs = {name + end for name in names for end in LOGS if is_sqlite(folder / name)}
    for name in names:
        inner = prefix + name
        if inner in without or name in logs:
            continue
        path = folder / name
        try:
            state = path.stat() if follow else path.lstat()
        except FileNotFoundError:
            if follow and path.is_symlink():
                raise VolumeError(
                    f"{path}: a link that leads nowhere ({path.readlink()}); remove it, or put "
                    "the file there"
                ) from None
            continue
        if stat.S_ISDIR(state.st_mode):
            if os.path.realpath(path) in above:
                raise VolumeError(f"{path}: a link to a folder that it lies in; remove it")
            yield inner, path, state
            yield from _below(path, inner + "/", without, follow, above)
        elif stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode):
            yield inner, path, state  # sockets and pipes hold nothing


def is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def size(folder: Path, leave_out: Collection[str] = (), follow: bool = False) -> int:
    """Bytes of the files that ``save`` would save; a database's log counted with it."""
    total = 0
    for _, path, state in entries(folder, leave_out, follow):
        if stat.S_ISREG(state.st_mode):
            total += state.st_size
            with contextlib.suppress(OSError):
                total += path.with_name(path.name + "-wal").stat().st_size
    return total


# Out


def save(
    folder: Path, out: IO[bytes], leave_out: Collection[str] = (), follow: bool = False
) -> None:
    """Writes all of ``folder`` to ``out``. SQLite's databases come first, each as it is at one
    moment: a file that a database names was there before it was named.

    Raises:
        VolumeError: a file cannot be read, became shorter meanwhile, or there is no space for the
            snapshot of a database.
    """
    if (folder / STAGED / "phase").exists():
        raise VolumeError(f"{folder}: a restore is half done there. Run it again, then this")
    _away(folder / SNAPSHOT)
    found = list(entries(folder, leave_out, follow))
    databases = [entry for entry in found if stat.S_ISREG(entry[2].st_mode) and is_sqlite(entry[1])]
    named = {name for name, _, _ in databases}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, path, state in databases:
            with _snapshot(path, folder / SNAPSHOT) as copy, copy.open("rb") as file:
                tar.addfile(_member(name, state, copy.stat().st_size), file)
        for name, path, state in found:
            if name in named:
                continue
            if stat.S_ISREG(state.st_mode):
                _add_file(tar, name, path)
            else:
                link = str(path.readlink()) if stat.S_ISLNK(state.st_mode) else ""
                tar.addfile(_member(name, state, 0, link))


def _member(name: str, state: os.stat_result, size: int, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, stat.S_IMODE(state.st_mode), state.st_mtime
    if stat.S_ISDIR(state.st_mode):
        member.type = tarfile.DIRTYPE
    elif link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    return member


def _add_file(tar: tarfile.TarFile, name: str, path: Path) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise VolumeError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        state = os.fstat(file.fileno())
        try:
            tar.addfile(_member(name, state, state.st_size), file)
        except OSError as error:
            if error.errno:
                raise
            # tarfile has no number for this one. The tar is spoilt by it.
            raise VolumeError(
                f"{path}: became shorter while it was read. Run the same command again"
            ) from None


@contextlib.contextmanager
def _snapshot(database: Path, copy: Path) -> Iterator[Path]:
    """A copy of ``database`` as it is at one moment, while others write to it."""
    if not os.access(copy.parent, os.W_OK):
        yield database  # nobody writes here
        return
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            # In one step: in several, each write of others between them would begin it anew.
            source.backup(target, pages=-1)
            # Alone, without a log beside it.
            target.execute("PRAGMA journal_mode=DELETE")
        yield copy
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            yield database  # it begins like one, and is something else
            return
        raise VolumeError(f"{database}: cannot be copied: {error}") from None
    finally:
        _away(copy)


# Back in


def stage(folder: Path, source: IO[bytes]) -> None:
    """Makes of a tar what ``commit`` will put in the place of all that is in ``folder``. Whoever
    commits it has it on the disk first (``os.sync``).

    Raises:
        VolumeError: the tar is cut off, names a place outside, or there is no space.
    """
    if (folder / STAGED / "phase").exists():
        raise VolumeError(f"{folder}: an earlier restore is half done there; commit it first")
    if mounts := [path for path in folder.iterdir() if os.path.ismount(path)]:
        raise VolumeError(f"{mounts[0]}: is mounted there, and could not give way. Unmount it")
    discard(folder)
    new = folder / STAGED / "new"
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    try:
        new.mkdir(parents=True)
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                path = _inside(new, member.name)
                _extract(tar, member, path)
                if member.isdir():
                    folders.append((path, member))
        # Last: one that may not be written to could take nothing in.
        for path, member in reversed(folders):
            path.chmod(member.mode)
            os.utime(path, (member.mtime, member.mtime))
    except tarfile.TarError as error:
        discard(folder)
        raise VolumeError(f"the archive cannot be read: {error}") from None
    except OSError as error:
        discard(folder)
        raise VolumeError(f"{error.filename or folder}: {error.strerror}") from None


def _inside(new: Path, name: str) -> Path:
    """Where a member goes; never through a link, which could lead anywhere."""
    parts = PurePosixPath(name).parts
    path = new
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            raise VolumeError(f"the archive has {name!r}, which lies behind a link")
    if not parts or name.startswith("/") or ".." in parts:
        raise VolumeError(f"the archive has {name!r}, which is no place in a folder")
    return path / parts[-1]


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.isreg():
        data = tar.extractfile(member)
        assert data is not None
        with path.open("xb") as file:
            shutil.copyfileobj(data, file, 1 << 20)
            os.fchmod(file.fileno(), member.mode)
        os.utime(path, (member.mtime, member.mtime))
    else:
        raise VolumeError(f"the archive has {member.name!r}, which is no file, folder or link")


def commit(folder: Path, keep: bool = False) -> None:
    """Puts what is staged in the place of all that is there.

    keep: what gives way lies in ``.before-restore`` then, in place of what an earlier one left.

    Raises:
        VolumeError: a file cannot be moved.
    """
    place = folder / STAGED
    _away(folder / DONE)
    if not place.exists():
        return  # done, by a run that could not say so any more
    phase, new, old = place / "phase", place / "new", place / "old"
    try:
        if not phase.exists():
            _write(phase, _OUT)
        if phase.read_text() == _OUT:
            old.mkdir(exist_ok=True)
            for path in list(folder.iterdir()):
                if path.name not in (STAGED, REPLACED):
                    path.rename(old / path.name)
            _write(phase, _IN)
        for path in list(new.iterdir()):
            path.rename(folder / path.name)
        sync_folder(folder)
        if keep and old.exists() and any(old.iterdir()):
            _away(folder / REPLACED)
            old.rename(folder / REPLACED)
    except OSError as error:
        raise VolumeError(f"{error.filename or folder}: {error.strerror}") from None
    # The phase goes last, with its folder under another name: half of it would be begun anew.
    place.rename(folder / DONE)
    _away(folder / DONE)


def _write(path: Path, text: str) -> None:
    """All of it or nothing, and on the disk."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until what was made and moved in a folder is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(folder: Path) -> None:
    _away(folder / STAGED)


def _away(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for inner in path.rglob("*"):
            if inner.is_dir() and not inner.is_symlink():
                inner.chmod(0o700)
        shutil.rmtree(path)
    elif os.path.lexists(path):  # where nothing may be removed, asking to is refused
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="volume.py")
    parser.add_argument("action", choices=("save", "size", "stage", "commit", "discard"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--leave-out", action="append", default=[])
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(words)
    folder = options.folder
    try:
        # A container goes on for a moment after whoever started it was killed.
        lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if options.action == "save":
            save(folder, sys.stdout.buffer, options.leave_out, options.follow)
            sys.stdout.buffer.flush()
        elif options.action == "size":
            print(size(folder, options.leave_out, options.follow))
        elif options.action == "stage":
            stage(folder, sys.stdin.buffer)
        elif options.action == "commit":
            commit(folder, options.keep)
        else:
            discard(folder)
    except VolumeError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename or folder}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
