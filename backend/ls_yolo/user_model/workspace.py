"""The folder that a user's class works in: its own files are seen there, and it may write.

The folder of the models is read-only, and people's classes write beside themselves: a cache, a
debug picture, weights that a library downloads.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ls_yolo import settings

log = logging.getLogger(__name__)
NAME = "model-py"
"""The folder's name in MODEL_DIR."""
PLACED = ".placed.json"
"""The file that names what was placed there, so that a later start can tell it from what the class
has written."""
WHOLE = ("packages",)
"""Folders that are seen as they are: nothing is to be written there, and they hold thousands of
files."""


def make(root: Path, kept: Path | None) -> Path:
    """The folder in which every file of ``root`` is seen, as it is now, and that may be written to.

    Source files are copies, so that ``Path(__file__).resolve()`` lies there too; all others are
    links. What the class wrote at an earlier start is still there; where ``root`` has a file of
    that name by now, it has ``.written`` behind its name.

    Args:
        root: the folder of the user's files (MODEL_ROOT).
        kept: the folder that outlives a restart (MODEL_DIR); None or one that cannot be written
            to: a folder that goes with the process's machine.

    Raises:
        OSError: there is no folder to write to, or no space.
    """
    work = kept / NAME if kept else None
    if work:
        with contextlib.suppress(OSError):
            work.mkdir(parents=True, exist_ok=True)
    if work is None or not os.access(work, os.W_OK):
        work = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
        log.warning("%s cannot be written to; what the class writes is lost with the container",
                    kept)  # fmt: skip
    listed = work / PLACED
    before = set(json.loads(listed.read_text())) if listed.exists() else set()
    placed = {str(path.relative_to(root)): path for path in _entries(root)}
    # First: who is stopped here knows at the next start what is not the class's own.
    _write(listed, json.dumps(sorted(before | set(placed))).encode())
    for name in before - set(placed):
        if _is_ours(work / name):
            (work / name).unlink()
    for name, path in placed.items():
        _place(path, work / name, name in before)
    _write(listed, json.dumps(sorted(placed)).encode())
    return work


def enter(work: Path) -> None:
    """Makes ``work`` the working directory and MODEL_ROOT, where upstream's classes put weights.

    A setting that is set to nothing is taken out of the environment: for the kit it is as good as
    not set, and a class that asks ``os.getenv(name, default)`` expects its default.
    """
    os.chdir(work)
    os.environ["MODEL_ROOT"] = str(work)
    for name in settings.BY_NAME:
        if os.environ.get(name) == "":
            del os.environ[name]


def _entries(root: Path) -> Iterator[Path]:
    """Every file below ``root``, and the folders that are seen whole; nothing hidden."""
    for at, folders, files in os.walk(root):
        whole = [
            name for name in folders if Path(at, name).is_symlink() or Path(at, name) in
            [root / special for special in WHOLE]
        ]  # fmt: skip
        folders[:] = [n for n in folders if n not in (*whole, "__pycache__")]
        # Kubernetes mounts a ConfigMap by hidden links.
        folders[:] = [n for n in folders if not n.startswith(".")]
        yield from (Path(at, n) for n in (*whole, *files) if not n.startswith("."))


def _is_ours(place: Path) -> bool:
    """Whether what lies at the place of a listed name is still what was placed there."""
    return place.is_symlink() or (place.suffix == ".py" and place.is_file())


def _place(path: Path, place: Path, listed: bool) -> None:
    """Makes ``path`` seen at ``place``; changes nothing where it is. ``listed``: a start before
    has placed it."""
    _make_folder(place.parent)
    if place.suffix == ".py" and os.access(path, os.R_OK) and path.is_file():
        content = path.read_bytes()
        if place.is_symlink() or not place.is_file() or place.read_bytes() != content:
            _clear(place, listed)
            _write(place, content)
    elif not place.is_symlink() or place.readlink() != path.absolute():
        _clear(place, listed)
        fresh = place.with_name(f".{place.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(path.absolute())
        fresh.replace(place)


def _make_folder(folder: Path) -> None:
    """Makes a folder; a file of the class's that has its name is moved aside."""
    if not folder.is_dir() or folder.is_symlink():
        _make_folder(folder.parent)
        _clear(folder, listed=folder.is_symlink())
        folder.mkdir(exist_ok=True)


def _clear(place: Path, listed: bool) -> None:
    """Moves aside what the class has written at ``place``."""
    if listed and _is_ours(place):
        if place.is_symlink():
            place.unlink()
    elif place.exists() or place.is_symlink():
        aside = place.with_name(place.name + ".written")
        if aside.is_dir() and not aside.is_symlink():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
        place.rename(aside)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)
