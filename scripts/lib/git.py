"""The clone that this kit is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lib import ROOT
from lib.cli import UserError


def git(*words: str) -> str:
    """What git prints.

    Raises:
        UserError: it is missing, or failed.
    """
    command = ["git", "-C", str(ROOT), *words]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError("found no git. Run: sudo apt install git") from None
    if done.returncode:
        said = done.stderr.strip().removeprefix("fatal: ") or f"exit code {done.returncode}"
        raise UserError(f"git {words[0]}: {said}")
    return done.stdout.strip()


def need_clone() -> None:
    """Raises: UserError: the kit's folder is no clone of its own, or its files were changed."""
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
    return next(iter(git("tag", "--list", "v*", "--sort=-version:refname").splitlines()), "")


def text_at(commit: str, path: str) -> str:
    """A file as a commit has it; empty where it has none."""
    try:
        return git("show", f"{commit}:{path}")
    except UserError:
        return ""
