"""A backup put beside what there is, until all of it is there and compared."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib import archive, backups, commands, versions
from lib.cli import UserError
from lib.parts import Part
from lib.postgres import Server
from lib.progress import Progress


def refuse(about: Mapping[str, Any], ours: str, postgres: bool, instead: str) -> None:
    """
    ours: the version of Label Studio that would read it.
    postgres: whether its database would be PostgreSQL; ``instead``: how it would.

    Raises:
        UserError: what the archive holds cannot be read here.
    """
    theirs = about["label_studio"]
    if not versions.at_least(ours, theirs):
        raise UserError(
            f"the backup is of Label Studio {theirs}, and this version of the kit has {ours}, "
            f"which may not read it. Check out version {about['kit']} of the kit or a newer one"
        )
    if about["database"] == backups.POSTGRES and not postgres:
        raise UserError(
            "the backup is of PostgreSQL, and this installation has SQLite, into which there is "
            f"no way back. {instead}"
        )


def first_look(file: Path, key: Sequence[Path | None]) -> tuple[dict[str, Any], str]:
    """What an archive says of itself, and its .env."""
    with archive.reading(file, *key) as reader:
        for part, name, _, data in reader.members():
            if f"{part}/{name}" == backups.SETTINGS and data:
                return reader.about, data.read().decode()
            break
    raise UserError(f"{file}: its settings are not there. Take another backup")


class _Staging:
    """Takes the members of an archive, a part after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = {part.name: part for part in parts}
        self.staged: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.tar: tarfile.TarFile | None = None
        self.said: commands.Reader | None = None

    def open(self, part: str) -> None:
        """Begins a part, after the end of the one before."""
        self.close()
        if part not in self.parts:
            raise UserError(f"the backup has a part {part!r}, which this version does not know")
        self.process = subprocess.Popen(
            self.parts[part].command("stage"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        self.said = commands.Reader(self.process.stderr)
        self.tar = tarfile.TarFile.open(
            fileobj=self.process.stdin, mode="w|", format=tarfile.PAX_FORMAT
        )
        self.staged.append(part)

    def take(
        self, part: str, name: str, member: tarfile.TarInfo, data: archive.Readable | None
    ) -> None:
        """
        Raises:
            UserError: it cannot be written.
        """
        if part not in self.staged:
            self.open(part)
        assert self.tar is not None
        member.name, member.pax_headers = name, {}
        try:
            self.tar.addfile(member, data)
        except BrokenPipeError:
            self.close()
            raise

    def close(self) -> None:
        """
        Raises:
            UserError: the part could not be written.
        """
        process, self.process = self.process, None
        if process is None or self.tar is None or process.stdin is None or self.said is None:
            return
        try:
            self.tar.close()
            process.stdin.close()
        except BrokenPipeError:
            pass  # what it has said tells why
        if process.wait():
            said = self.said.text() or f"exit code {process.returncode}"
            raise UserError(f"{self.staged[-1]}: {said}")

    def discard(self) -> None:
        """Takes away what is staged."""
        if self.process:
            self.process.kill()
            self.process.wait()
        for name in self.staged:
            subprocess.run(
                self.parts[name].command("discard"), stdin=subprocess.DEVNULL, capture_output=True
            )


def stage(
    reader: archive.Reader,
    parts: Sequence[Part],
    server: Server | None,
    move: Callable[[Server], None],
    bar: Progress,
    leave_out: Container[str] = (),
) -> list[str]:
    """Puts all of an archive, but for some parts, beside what there is.

    move: puts the SQLite database that is staged into PostgreSQL, beside the one there.

    Returns:
        The names of its parts.

    Raises:
        UserError: it is not whole, or cannot be written; all is as it was then.
    """
    staging = _Staging(parts)
    try:
        for part, name, member, data in reader.members():
            bar.advance(member.size, part)
            whole = f"{part}/{name}"
            if whole == backups.DUMP and data:
                assert server
                server.stage(data)
            elif whole != backups.SETTINGS and part not in leave_out:
                staging.take(part, name, member, data)
        for part in reader.about["parts"]:
            if part not in staging.staged and part not in leave_out:
                staging.open(part)  # one that was empty
        staging.close()
        bar.close()
        assert reader.whole
        if server and reader.about["database"] == backups.LITE:
            server.make_restored()
            move(server)
    except BaseException:
        staging.discard()
        if server:
            server.drop_restored()
        raise
    return staging.staged
