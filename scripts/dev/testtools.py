"""Makes ``.venv`` for the tests from requirements-dev.lock, and brings the programs they need.

    testtools                 .venv (needs python3-venv), helm and kubectl
    testtools browser         and Chromium, for the tests that look at the page
    testtools ssh             and the ssh client, for the tests that run the playbooks
    testtools kubernetes      and what only the tests of the chart want: scanners, CRDs of others

Debian's packages are installed where they are missing and root or sudo is at hand, and said first.
Without, the tests that need them skip themselves.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import shutil
import sys
from collections.abc import Sequence
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


def main(arguments: Sequence[str] = ()) -> int:
    if unknown := set(arguments) - {"browser", "ssh", "kubernetes"}:
        raise UserError(f"found {' '.join(unknown)!r}, expected browser, ssh or kubernetes")
    if missing := missing_packages("browser" in arguments, "ssh" in arguments):
        install_packages(missing)
    python = str(VENV / "bin" / "python")
    venvs.make(VENV, LOCK, [str(venvs.uv()), "pip", "install", "--quiet", "--python", python])
    tools.programs()
    link_docker(tools.TOOLS / "bin" / "docker")
    if "kubernetes" in arguments:
        scanners()
        crds.fetch()
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
