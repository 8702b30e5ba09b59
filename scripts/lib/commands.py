"""Commands that a script runs, and how it becomes root for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO, Any

from lib.cli import UserError


def output(command: Sequence[str], timeout: float = 20) -> str | None:
    """What ``command`` prints, stripped; None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def as_root() -> list[str]:
    """What to put before a command that only root may run.

    Raises:
        UserError: neither root nor a way to become root.
    """
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        if output(["sudo", "-n", "true"]) is not None:
            return ["sudo", "-n"]
        if sys.stdin.isatty():
            return ["sudo"]
    raise UserError(
        f"root is needed, and user {os.environ.get('USER', os.geteuid())} has no sudo that works "
        "without a terminal. Run the same command as root, or in a terminal as a user with sudo"
    )


def may_become_root() -> bool:
    try:
        as_root()
    except UserError:
        return False
    return True


def run(command: Sequence[str], **more: Any) -> None:
    """Runs ``command`` with its output shown.

    Raises:
        UserError: it is missing or failed.
    """
    try:
        done = subprocess.run(command, **more)
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise UserError(f"exit code {done.returncode} from: {' '.join(command)}")


def piped(command: Sequence[str], what: str, **pipes: Any) -> None:
    """Runs a command between pipes.

    Raises:
        UserError: it failed.
    """
    pipes.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(command, stderr=subprocess.PIPE, **pipes)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise UserError(f"{what}: {said or f'exit code {done.returncode}'}")


class Reader(threading.Thread):
    """Reads what a child says while we write to it or wait for it: it stops at a full pipe.

    ``began`` is set once it has said something, or can say no more.
    """

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        assert pipe is not None
        self.pipe = pipe
        self.began = threading.Event()
        self.lines: list[bytes] = []
        self.start()

    def run(self) -> None:
        for line in self.pipe:
            self.lines.append(line)
            self.began.set()
        self.began.set()

    def text(self) -> str:
        """All that was said, once the child has closed the pipe."""
        self.join()
        return b"".join(self.lines).decode(errors="replace").strip()
