"""Files of a folder that become no task, though people may think so."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ls_yolo.text import some


def left_out(folder: Path, regex: str, recursive: bool) -> Iterator[str]:
    """What of ``folder`` becomes no task though people may think so, in a line a kind: files whose
    names are not UTF-8, which Label Studio cannot store, and files that ``regex`` leaves out."""
    wanted = re.compile(regex)
    unreadable: list[str] = []
    kinds: Counter[str] = Counter()
    for path in folder.rglob("*") if recursive else folder.glob("*"):
        if not path.is_file():
            continue
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if not _utf8(str(path)):
            unreadable.append(f"'{name}'")
        elif not wanted.match(path.name):
            resource = path.name.startswith("._")  # what a Mac writes beside a file
            kinds["._*" if resource else path.suffix.lower() or "without a suffix"] += 1
    if unreadable:
        yield (
            f"{len(unreadable)} files are left out, since their names are not UTF-8: "
            f"{some(sorted(unreadable))}; rename them"
        )
    if kinds:
        listed = [f"{count} {kind}" for kind, count in kinds.most_common()]
        yield f"{kinds.total()} files are no tasks, since storage.regex leaves out: {some(listed)}"


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
