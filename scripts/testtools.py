#!/usr/bin/env python3
"""Makes ``.venv`` for the tests from requirements-dev.lock, and brings Debian packages they need.

    testtools.py              .venv (needs python3-venv)
    testtools.py browser      and Chromium, for the tests that look at the page
    testtools.py ssh          and the ssh client, for the tests that run the playbooks

Packages are installed where they are missing and root or sudo is at hand, and said first. Without,
the tests that need them skip themselves.
"""

from __future__ import annotations

import ctypes.util
import hashlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import common
from build import certificates
from common import Failure, say
from install_engine import Host
from preflight import family, os_release

VENV = common.ROOT / ".venv"
LOCK = common.ROOT / "requirements-dev.lock"
UV_VENV = common.ROOT / ".tools" / "uv"
UV_LOCK = common.ROOT / "scripts" / "image" / "uv.lock"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def index_environment() -> dict[str, str]:
    """What tells pip and uv about index and certificates."""
    values = common.values()
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_NO_CONFIG": "1"}
    if values["PIP_INDEX_URL"]:
        environment["PIP_INDEX_URL"] = environment["UV_DEFAULT_INDEX"] = values["PIP_INDEX_URL"]
    if bundle := certificates(values):
        environment["PIP_CERT"] = environment["SSL_CERT_FILE"] = str(bundle)
    return environment


def missing_packages(browser: bool, ssh: bool) -> list[str]:
    """Debian packages that the tests want and this host lacks."""
    missing = []
    if ssh and not shutil.which("ssh"):
        missing.append("openssh-client")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        missing.append("python3-venv")
    if browser and not any(map(shutil.which, BROWSERS)):
        missing.append("chromium")
    # Playwright's own node is linked against it; Debian 12 does not bring it along.
    if browser and not ctypes.util.find_library("atomic"):
        missing.append("libatomic1")
    return missing


def install_packages(missing: Sequence[str]) -> None:
    """Raises: Failure: they cannot be installed and the tests cannot do without."""
    # Ubuntu's package "chromium-browser" is an empty one that wants snap.
    debian = os_release().get("ID") == "debian"
    wanted = [name for name in missing if debian or name != "chromium"]
    if wanted and family(os_release()) and common.may_become_root():
        say(f"To be installed with apt, as root, for the tests: {', '.join(wanted)}")
        host = Host()
        host.run("dpkg", "--configure", "-a")
        host.apt("update", check=False)
        host.apt("install", "-y", "--no-install-recommends", *wanted)
        missing = [name for name in missing if name not in wanted]
    if "python3-venv" in missing:
        raise Failure(
            "this Python has no venv. Run as root: apt-get install python3-venv   and try again"
        )
    if missing:
        say(f"warning: {', '.join(missing)} is missing: tests that need it skip themselves")


def stamp_of(lock: Path) -> str:
    """What a virtual environment was made from: its lock and the Python."""
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.executable} {sys.version}"


def venv(folder: Path, lock: Path, install: Sequence[str]) -> None:
    """A virtual environment with just what ``lock`` names; made anew when either has changed."""
    stamp = folder / "made-from"
    if stamp.is_file() and stamp.read_text() == stamp_of(lock):
        return
    say(f"{folder.relative_to(common.ROOT)}: made from {lock.name}")
    common.run([sys.executable, "-m", "venv", "--clear", str(folder)])
    common.run([*install, "--require-hashes", "-r", str(lock)], env=index_environment())
    stamp.write_text(stamp_of(lock))  # last: what was stopped half-way is made anew


def uv() -> Path:
    """The pinned uv, in a virtual environment of its own under .tools."""
    pip = [str(UV_VENV / "bin" / "pip"), "install", "--quiet", "--only-binary", ":all:"]
    venv(UV_VENV, UV_LOCK, pip)
    return UV_VENV / "bin" / "uv"


def link_docker(link: Path) -> None:
    """The client that the scripts choose, under a folder that the tests put first on the PATH."""
    if not common.docker_clients():
        return
    target = Path(common.docker()).resolve()
    if not (link.is_symlink() and link.readlink() == target):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def main(arguments: Sequence[str] = ()) -> int:
    if missing := missing_packages("browser" in arguments, "ssh" in arguments):
        install_packages(missing)
    python = str(VENV / "bin" / "python")
    venv(VENV, LOCK, [str(uv()), "pip", "install", "--quiet", "--python", python])
    link_docker(common.ROOT / ".tools" / "bin" / "docker")
    return 0


if __name__ == "__main__":
    common.run_main(lambda: main(sys.argv[1:]))
