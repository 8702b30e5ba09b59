"""Files that belong together, wherever they are, and the commands that read and replace them."""

from __future__ import annotations

import abc
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lib import volume
from lib.cli import UserError

TEXT = Path(volume.__file__)
MADE_AGAIN = ("models/openvino",)
"""What the backend makes anew where it is missed."""


@dataclass(frozen=True)
class Part(abc.ABC):
    """A part of an installation.

    where: what holds it.
    leave_out: names in it of what is made again when it is missed.
    """

    name: str
    where: str
    leave_out: tuple[str, ...] = ()

    @abc.abstractmethod
    def volume(self, action: str) -> list[str]:
        """The command line of ``lib/volume.py`` where the files are, up to their folder."""

    def command(self, action: str) -> list[str]:
        """The command line of one of ``lib/volume.py``'s actions on it."""
        words = self.volume(action)
        if action in ("save", "size"):
            words += [word for name in self.leave_out for word in ("--leave-out", name)]
        return words

    def run(self, action: str) -> str:
        """
        Raises:
            UserError: it failed.
        """
        done = subprocess.run(
            self.command(action), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"{self.name}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout

    def size(self) -> int:
        """Bytes in it."""
        return int(self.run("size"))


class Folder(Part):
    """A folder that a person fills: links are what they lead to, and what gives way is kept."""

    def volume(self, action: str) -> list[str]:
        more = {"save": ["--follow"], "size": ["--follow"], "commit": ["--keep"]}.get(action, [])
        return [sys.executable, str(TEXT), action, self.where, *more]
