"""Versions: of this project, and the least that is needed of others."""

from __future__ import annotations

import re

from lib import ROOT
from lib.cli import UserError

MINIMUMS_FILE = ROOT / "scripts" / "minimums.yml"


def version_of(text: str) -> tuple[int, ...]:
    """The numbers of the first version in ``text``; empty if there is none.

    ``"Docker Compose version v2.26.1-4"`` and ``"5:26.1.5+dfsg1-9"`` (an epoch before the colon)
    are both understood.
    """
    text = re.sub(r"(^|\s)\d+:(?=\d)", r"\1", text)
    found = re.search(r"(?<![\w.])v?(\d+(?:\.\d+)+|\d+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()


def at_least(found: str, needed: str) -> bool:
    """Whether version ``found`` is ``needed`` or later; missing parts count as zero."""
    have, want = version_of(found), version_of(needed)
    width = max(len(have), len(want))
    return bool(have) and have + (0,) * (width - len(have)) >= want + (0,) * (width - len(want))


def parse_minimums(text: str) -> dict[str, str]:
    """A flat YAML file of ``name: value`` lines, without a YAML parser, which a bare host lacks."""
    minimums = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if not content:
            continue
        match = re.fullmatch(r"""([a-z_]+): +("?)([0-9.]+)\2""", content)
        if not match:
            raise UserError(
                f"minimums.yml line {number}: found {line!r}, expected a name and a number: "
                'compose: "2.26.1"'
            )
        minimums[match[1]] = match[3]
    return minimums


def minimums() -> dict[str, str]:
    return parse_minimums(MINIMUMS_FILE.read_text())


def project_version() -> str:
    return (ROOT / "VERSION").read_text().strip()


LOCK = "label-studio/requirements.lock"


def label_studio(lock: str = "") -> str:
    """Label Studio's version in the image that is built here, or by another one's ``LOCK``."""
    lock = lock or (ROOT / LOCK).read_text()
    found = re.search(r"(?m)^label-studio==([0-9.]+)", lock)
    assert found is not None
    return found[1]


def images() -> dict[str, str]:
    """The two images: the folder that each is built from, and its tag."""
    version = project_version()
    return {name: f"ls-yolo/{name}:{version}" for name in ("label-studio", "backend")}


# Built or pulled where it is asked for. Its name has the major version that the data are of.
POSTGRES_IMAGE = "ls-yolo/postgres:17"
