"""`make lock`: makes every lock file anew from its .in file, with hashes.

    lock [--upgrade] [FOLDER_OR_FILE...]     all of them if none is named

Without --upgrade a locked version stays as long as its .in file allows it. No lock names an index
or a path of this machine.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT, commands, venvs, versions
from lib.cli import UserError, run_main, say


@dataclass(frozen=True)
class Lock:
    """One lock. ``constraints``: locks to agree with. ``without``: a lock whose packages are left
    out, because it is installed first. ``overrides``: a file beside the .in file that replaces what
    packages ask for. ``universal``: for every system, not just our images'.
    """

    source: str
    constraints: tuple[str, ...] = ()
    without: str = ""
    overrides: str = ""
    universal: bool = False

    @property
    def target(self) -> Path:
        return (ROOT / self.source).with_suffix(".lock")

    @property
    def folder(self) -> Path:
        return (ROOT / self.source).parent


# In this order: a lock comes after those that it agrees with.
LOCKS = (
    Lock("scripts/image/uv.in", universal=True),
    Lock("backend/torch.in"),
    Lock(
        "backend/requirements.in",
        constraints=("backend/torch.lock",),
        without="backend/torch.lock",
        overrides="overrides.txt",
    ),
    Lock("label-studio/build.in"),
    Lock("label-studio/requirements.in", overrides="overrides.txt"),
    Lock("ansible/requirements.in", universal=True),
    Lock("requirements-dev.in", constraints=("ansible/requirements.lock",), universal=True),
    Lock("tests/kubernetes/scanners.in", universal=True),
)


def packages(lock: str) -> list[str]:
    """The names that a lock pins."""
    return re.findall(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==", lock)


def command(lock: Lock, uv: Path, upgrade: bool) -> list[str]:
    words = [
        str(uv), "pip", "compile", Path(lock.source).name, "--output-file", lock.target.name,
        "--quiet", "--generate-hashes", "--no-annotate", "--no-emit-index-url",
        "--custom-compile-command", "make lock",
    ]  # fmt: skip
    if lock.universal:
        words += ["--universal", "--python-version", versions.minimums()["python"]]
    else:
        words += ["--python-platform", "linux", "--python-version", "3.13"]
    if lock.overrides:
        words += ["--override", lock.overrides]
    for constraint in lock.constraints:
        words += ["--constraint", str(ROOT / constraint)]
    if lock.without:
        for name in packages((ROOT / lock.without).read_text()):
            words += ["--no-emit-package", name]
    if upgrade:
        words.append("--upgrade")
    return words


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions allowed")
    parser.add_argument("only", nargs="*", help=", ".join(lock.source for lock in LOCKS))
    options = parser.parse_args(arguments)
    only = [word.rstrip("/").removeprefix("./") for word in options.only]
    chosen = [
        lock for lock in LOCKS if not only or any(lock.source.startswith(word) for word in only)
    ]
    if not chosen:
        raise UserError(
            f"found {' '.join(only)}, expected one of: {' '.join(x.source for x in LOCKS)}"
        )
    program = venvs.uv()
    for lock in chosen:
        if not (ROOT / lock.source).is_file():
            raise UserError(f"found no {lock.source}")
        say(f"{lock.target.relative_to(ROOT)}")
        commands.run(
            command(lock, program, options.upgrade), cwd=lock.folder, env=venvs.index_environment()
        )
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
