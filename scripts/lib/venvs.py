"""Virtual environments made from lock files, and uv, which fills them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lib import ROOT, commands, net, settings
from lib.cli import say
from lib.files import sha256_of

UV_VENV = ROOT / ".tools" / "uv"
UV_LOCK = ROOT / "scripts" / "image" / "uv.lock"


def index_environment() -> dict[str, str]:
    """What tells pip and uv about index and certificates."""
    values = settings.values()
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_CONFIG": "1"}
    if values["PIP_INDEX_URL"]:
        environment["PIP_INDEX_URL"] = environment["UV_DEFAULT_INDEX"] = values["PIP_INDEX_URL"]
    if bundle := net.certificates(values):
        environment["PIP_CERT"] = environment["SSL_CERT_FILE"] = str(bundle)
    return environment


def stamp_of(lock: Path) -> str:
    """What a virtual environment was made from: its lock and the Python."""
    return f"{sha256_of(lock)} {sys.executable} {sys.version}"


def make(folder: Path, lock: Path, install: Sequence[str]) -> None:
    """A virtual environment with just what ``lock`` names; made anew when either has changed."""
    stamp = folder / "made-from"
    if stamp.is_file() and stamp.read_text() == stamp_of(lock):
        return
    say(f"{folder.relative_to(ROOT)}: made from {lock.name}")
    commands.run([sys.executable, "-m", "venv", "--clear", str(folder)])
    commands.run([*install, "--require-hashes", "-r", str(lock)], env=index_environment())
    stamp.write_text(stamp_of(lock))  # last: what was stopped half-way is made anew


def uv() -> Path:
    """The pinned uv, in a virtual environment of its own under .tools."""
    pip = [str(UV_VENV / "bin" / "pip"), "install", "--quiet", "--only-binary", ":all:"]
    make(UV_VENV, UV_LOCK, pip)
    return UV_VENV / "bin" / "uv"
