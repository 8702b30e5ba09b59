"""Makes ``.venv`` for the tests from requirements-dev.lock, and brings the programs they need.

    testtools [SUITE...]      .venv (needs python3-venv), helm and kubectl; and for the suites
      integration             Chromium, gpg, age, and ip, which lays the tests' own networks
      kubernetes              scanners, and CustomResourceDefinitions of other projects
      host                    ip, and the ssh client

Debian's packages are installed where they are missing and root or sudo is at hand, and said first.
Without, those that are missing are named; the tests that need them skip themselves.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cluster import tools
from dev import crds
from host import apt, system
from lib import ROOT, commands, docker, venvs
from lib.cli import UserError, run_main, say

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements-dev.lock"
SCANNERS = tools.TOOLS / "scanners"
SCANNERS_LOCK = ROOT / "tests" / "kubernetes" / "scanners.lock"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def has_venv() -> bool:
    return all(importlib.util.find_spec(name) for name in ("ensurepip", "venv"))


def has_browser() -> bool:
    return any(map(shutil.which, BROWSERS))


def has_atomic() -> bool:
    return bool(ctypes.util.find_library("atomic"))


def has(program: str) -> Callable[[], bool]:
    """``program`` is there, be it where only root's PATH leads."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return lambda: shutil.which(program, path=path) is not None


# Debian's packages, and how each is told to be there. Whatever the suite, .venv is made.
PACKAGES: dict[str, Callable[[], bool]] = {
    "python3-venv": has_venv,
    "chromium": has_browser,
    "libatomic1": has_atomic,  # Playwright's own node is linked against it
    "iproute2": has("ip"),
    "openssh-client": has("ssh"),
    "gnupg": has("gpg"),
    "age": has("age"),
}
SUITES: dict[str, tuple[str, ...]] = {
    "integration": ("chromium", "libatomic1", "iproute2", "gnupg", "age"),
    "kubernetes": (),
    "host": ("iproute2", "openssh-client"),
}


def missing_packages(suites: Iterable[str]) -> list[str]:
    """Debian's packages that the tests of ``suites`` want and this host lacks."""
    wanted = dict.fromkeys(["python3-venv", *(name for suite in suites for name in SUITES[suite])])
    return [name for name in wanted if not PACKAGES[name]()]


def install_packages(missing: Sequence[str]) -> None:
    """Raises: UserError: they cannot be installed and the tests cannot do without."""
    # Ubuntu's package "chromium-browser" is an empty one that wants snap.
    debian = system.os_release().get("ID") == "debian"
    wanted = [name for name in missing if debian or name != "chromium"]
    if wanted and system.family(system.os_release()) and commands.may_become_root():
        say(f"To be installed with apt, as root, for the tests: {', '.join(wanted)}")
        host = apt.Host()
        host.run("dpkg", "--configure", "-a")
        host.apt("update", check=False)
        host.apt("install", "-y", "--no-install-recommends", *wanted)
        missing = [name for name in missing if name not in wanted]
    if "python3-venv" in missing:
        raise UserError(
            "this Python has no venv. Run as root: apt-get install python3-venv   and try again"
        )
    if missing:
        say(f"warning: {', '.join(missing)} is missing: tests that need it skip themselves")


def link_docker(link: Path) -> None:
    """The client that the scripts choose, under a folder that the tests put first on the PATH."""
    if not docker.clients():
        return
    target = Path(docker.client()).resolve()
    if not (link.is_symlink() and link.readlink() == target):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def scanners() -> None:
    """A virtual environment of their own: what they need would not fit that of the tests."""
    python = str(SCANNERS / "bin" / "python")
    venvs.make(
        SCANNERS, SCANNERS_LOCK, [str(venvs.uv()), "pip", "install", "--quiet", "--python", python]
    )


def main(suites: Sequence[str] = ()) -> int:
    if unknown := set(suites) - SUITES.keys():
        raise UserError(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(SUITES)}")
    if missing := missing_packages(suites):
        install_packages(missing)
    python = str(VENV / "bin" / "python")
    venvs.make(VENV, LOCK, [str(venvs.uv()), "pip", "install", "--quiet", "--python", python])
    tools.programs()
    link_docker(tools.TOOLS / "bin" / "docker")
    if "kubernetes" in suites:
        scanners()
        crds.fetch()
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
