"""The clone that this kit is."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from lib import ROOT, versions
from lib.cli import UserError

ASIDE = ".of-before-the-checkout"
ORIGIN_WITHIN = 20.0  # seconds


def git(*words: str, within: float | None = None) -> str:
    """What git prints. It asks nobody for a password.

    within: seconds that it may take.

    Raises:
        UserError: it is missing, failed, or took too long.
    """
    command = ["git", "-C", str(ROOT), *words]
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within,
            env={**quiet, **os.environ},
        )  # fmt: skip
    except FileNotFoundError:
        raise UserError("found no git. Run: sudo apt install git") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"git {words[0]}: no answer within {within:.0f} seconds") from None
    if done.returncode:
        said = done.stderr.strip().removeprefix("fatal: ") or f"exit code {done.returncode}"
        raise UserError(f"git {words[0]}: {said}")
    return done.stdout.strip()


def need_clone() -> None:
    """
    Raises:
        UserError: the kit's folder is no clone of its own, or its files were changed.
    """
    try:
        top = git("rev-parse", "--show-toplevel")
    except UserError:
        top = ""
    if not top or Path(top).resolve() != ROOT:
        raise UserError(
            f"{ROOT} is no git clone that this user may use, so no other version can be had here. "
            "Another way: make backup, then make restore in the folder of the other version"
        )
    if changed := git("status", "--porcelain", "--untracked-files=no"):
        names = ", ".join(line[2:].strip() for line in changed.splitlines()[:5])
        raise UserError(
            f"files of the kit were changed: {names}. Commit them, or put them away: git stash"
        )


def check_out(version: str, ours: Sequence[str] = ()) -> None:
    """
    ours: folders whose files stay as they are, also where that version has one of that name among
        its own, which git would put in the place of a file that it ignores.

    Raises:
        UserError: git does not.
    """

    def names(commit: str) -> set[str]:
        return set(git("ls-tree", "-r", "--name-only", commit, "--", *ours).splitlines())

    theirs = names(version) - names("HEAD") if ours else set()
    for path in (ROOT / name for name in theirs):
        if path.exists():
            path.rename(f"{path}{ASIDE}")
    try:
        git("checkout", "--quiet", version)
    finally:
        # Those of a run that was killed too.
        for folder in ours:
            for aside in (ROOT / folder).rglob(f"*{ASIDE}"):
                aside.replace(str(aside).removesuffix(ASIDE))


def commit_of(name: str) -> str:
    """The whole hash of what a tag, branch or commit names.

    Raises:
        UserError: there is none.
    """
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except UserError:
        raise UserError(
            f"found no version {name} in this clone. Newer ones come by: git fetch --tags"
        ) from None


def here() -> str:
    """What is checked out: a branch by its name, so that it is one again, else a commit."""
    branch = git("branch", "--show-current")
    return branch or git("rev-parse", "HEAD")


def newest() -> str:
    """The newest release that this clone knows; empty without one."""
    return _newest(git("tag", "--list").splitlines())


def newer_at_origin() -> str:
    """The newest release where this clone comes from; empty where that is not newer than this.

    Raises:
        UserError: it cannot be asked.
    """
    listed = git("ls-remote", "--tags", "--refs", "origin", within=ORIGIN_WITHIN)
    found = _newest(line.rpartition("/")[2] for line in listed.splitlines())
    return found if found and not versions.at_least(versions.project_version(), found) else ""


def _newest(tags: Iterable[str]) -> str:
    """Of the releases among tags, v1.2.3, without what is before one, v1.2.3-rc1."""
    releases = [tag for tag in tags if re.fullmatch(r"v\d+(\.\d+)*", tag)]
    return max(releases, key=versions.version_of, default="")


def text_at(commit: str, path: str) -> str:
    """A file as a commit has it; empty where it has none."""
    try:
        return git("show", f"{commit}:{path}")
    except UserError:
        return ""
