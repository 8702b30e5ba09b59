"""A backup in one file: a tar, gzip over it, perhaps gpg or age over that.

Its first member says what it is, its last what each of the others must be: whoever reads it to the
end knows that nothing is missing and nothing else is in it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

from lib import commands
from lib.cli import UserError

FORMAT = 1
HEAD, TAIL = "manifest.json", "files.json"
ENDINGS = (".tar.gz", ".tar.gz.gpg", ".tar.gz.age")
_DAMAGED = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error)
_MOST_HEAD = 1 << 20
"""Bytes of the first member; an archive of somebody else's could have any."""


class ArchiveError(UserError):
    """What is wrong with an archive."""


class Readable(Protocol):
    """What is read from begin to end."""

    def read(self, size: int = ..., /) -> bytes: ...


# Locks


@dataclass(frozen=True)
class Lock:
    """What an archive is encrypted for: a file that holds a passphrase, or a recipient.

    An age recipient is an ``age1...`` or ``ssh-...`` key; all else is a key that gpg knows.
    """

    passphrase_file: Path | None = None
    recipient: str = ""

    @property
    def ending(self) -> str:
        """That of a file's name."""
        if self.recipient.startswith(("age1", "ssh-")):
            return ".age"
        return ".gpg" if self.recipient or self.passphrase_file else ""

    def command(self) -> list[str]:
        """What encrypts its input; nothing without a lock.

        Raises:
            UserError: there is a passphrase and a recipient, or the file holds no passphrase.
        """
        if self.recipient and self.passphrase_file:
            raise UserError("found PASSPHRASE_FILE and RECIPIENT, expected one of them")
        if self.ending == ".age":
            return ["age", "--recipient", self.recipient]
        if self.recipient:
            return [*_GPG, "--trust-model", "always", "--encrypt", "--recipient", self.recipient]
        if self.passphrase_file:
            return [*_GPG, *_passphrase(self.passphrase_file), "--cipher-algo", "AES256",
                    "--symmetric"]  # fmt: skip
        return []


# Nothing is compressed twice.
_GPG = ["gpg", "--batch", "--quiet", "--no-tty", "--compress-algo", "none", "--output", "-"]


def _passphrase(file: Path) -> list[str]:
    try:
        first = file.read_text().splitlines()[:1]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"PASSPHRASE_FILE: {file}: {error}") from None
    if not first or not first[0].strip():
        raise UserError(f"PASSPHRASE_FILE: {file}: its first line is empty, expected it there")
    return ["--pinentry-mode", "loopback", "--passphrase-file", str(file)]


def key_command(
    archive: Path, passphrase_file: Path | None, identity: Path | None, by_passphrase: bool = False
) -> list[str]:
    """What decrypts ``archive``, by the ending of its name; nothing where it is not encrypted.

    by_passphrase: whether gpg wants one, as ``_by_passphrase`` finds.

    Raises:
        UserError: there is nothing to decrypt it with.
    """
    if archive.suffix == ".age":
        if identity is None:
            raise UserError(f"{archive}: encrypted by age. Name the file of the key: IDENTITY=FILE")
        return ["age", "--decrypt", "--identity", str(identity)]
    if archive.suffix == ".gpg":
        if by_passphrase and passphrase_file is None:
            # Its agent would ask on a terminal, and fail without one in words that help nobody.
            raise UserError(
                f"{archive}: encrypted by a passphrase. Name the file that holds it: "
                "PASSPHRASE_FILE=FILE"
            )
        # Without a file the key is in gpg's own ring, whose agent asks for what guards it.
        given = _passphrase(passphrase_file) if passphrase_file else []
        return [*_GPG, *given, "--decrypt"]
    return []


def _by_passphrase(file: BinaryIO) -> bool:
    """Whether what is encrypted begins with a key made of a passphrase: OpenPGP's packet 3 (RFC
    9580, 4.2 and 5). age's files begin with a letter.
    """
    (first,) = os.pread(file.fileno(), 1, 0) or (0,)
    if not first & 0x80:
        return False
    return (first & 0x3F if first & 0x40 else first >> 2 & 0x0F) == 3


class _Filter:
    """A program that what is written, or read, goes through."""

    def __init__(self, command: list[str], ring: bool = True, **pipes: Any) -> None:
        """ring: whether it needs the user's own keys."""
        self.home = None
        if not ring:
            # gpg makes a folder, and has an agent make a key of a passphrase. The agent ends when
            # its folder goes; the user's would stay.
            self.home = tempfile.TemporaryDirectory(prefix="ls-yolo-", ignore_cleanup_errors=True)
            command = [command[0], "--homedir", self.home.name, *command[1:]]
        try:
            self.process = subprocess.Popen(command, stderr=subprocess.PIPE, **pipes)
        except OSError as error:
            fix = f"sudo apt install {'gnupg' if command[0] == 'gpg' else command[0]}"
            raise UserError(f"cannot run {command[0]}: {error.strerror}. Run: {fix}") from None
        self.name = command[0]
        self.said = commands.Reader(self.process.stderr)

    def end(self) -> None:
        code = self.process.wait()
        self._forget()
        if code:
            raise UserError(f"{self.name}: {self.said.text() or f'exit code {code}'}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._forget()

    def _forget(self) -> None:
        if self.home:
            self.home.cleanup()


# Out


class Writer:
    """Makes an archive: parts are added, then it is finished."""

    def __init__(self, out: IO[bytes], about: Mapping[str, Any], lock: Lock = Lock()) -> None:
        """
        about: what an archive says of itself, as JSON has it.

        Raises:
            UserError: what encrypts cannot be run.
        """
        self.files: dict[str, dict[str, Any]] = {}
        command = lock.command()
        ring = not lock.passphrase_file
        self.filter = _Filter(command, ring, stdin=subprocess.PIPE, stdout=out) if command else None
        target = self.filter.process.stdin if self.filter else out
        assert target is not None
        self.target = target
        # Most of what is in it are images and weights, which no level makes smaller.
        self.zip = gzip.GzipFile(fileobj=self.target, mode="wb", compresslevel=1, mtime=0)
        self.tar = tarfile.TarFile.open(fileobj=self.zip, mode="w|", format=tarfile.PAX_FORMAT)
        self._add_json(HEAD, {"format": FORMAT, **about})

    def _add_json(self, name: str, content: Any) -> None:
        data = json.dumps(content, indent=1).encode()  # ASCII: a name may be no text
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o600
        self.tar.addfile(member, io.BytesIO(data))

    def add(self, member: tarfile.TarInfo, data: Readable | None) -> None:
        """Adds a member, under the name that it has."""
        if not member.isreg():
            self.tar.addfile(member)
            self.files[member.name] = {"link": member.linkname} if member.issym() else {}
            return
        assert data is not None
        hashed = _Hashed(data)
        self.tar.addfile(member, cast(IO[bytes], hashed))
        self.files[member.name] = {"size": member.size, "sha256": hashed.sha256()}

    def add_file(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            member = tarfile.TarInfo(name)
            member.size, member.mode = path.stat().st_size, 0o600
            self.add(member, file)

    def add_tar(self, part: str, source: Readable) -> None:
        """Adds all of another tar, below the name of a part.

        Raises:
            ArchiveError: it cannot be read.
        """
        try:
            with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as tar:
                for member in tar:
                    data = tar.extractfile(member) if member.isreg() else None
                    member.name = f"{part}/{member.name}"
                    member.pax_headers = {}
                    self.add(member, data)
        except tarfile.TarError as error:
            raise ArchiveError(f"{part}: {error}") from None

    def finish(self) -> None:
        """Raises: UserError: what encrypts failed."""
        self._add_json(TAIL, self.files)
        self.tar.close()
        self.zip.close()
        if self.filter:
            self.target.close()
            self.filter.end()

    def kill(self) -> None:
        """Ends what encrypts, where it is not to be finished."""
        if self.filter:
            self.filter.kill()


class _Hashed:
    """A file whose hash is known once it is read. ``cut``: makes an error of what a damaged one
    raises.
    """

    def __init__(self, file: Readable, cut: Callable[[Exception], Exception] | None = None) -> None:
        self.file, self.digest, self.length = file, hashlib.sha256(), 0
        self.cut = cut

    def read(self, size: int = -1) -> bytes:
        try:
            data = self.file.read(size)
        except _DAMAGED as error:
            raise self.cut(error) if self.cut else error from None
        self.digest.update(data)
        self.length += len(data)
        return data

    def sha256(self) -> str:
        return self.digest.hexdigest()


# Back


class Reader:
    """An archive that is read once, from its begin to its end."""

    def __init__(self, unzipped: gzip.GzipFile, name: str) -> None:
        self.unzipped, self.name = unzipped, name
        self.tar = tarfile.TarFile.open(fileobj=unzipped, mode="r|")
        self.found: dict[str, dict[str, Any]] = {}
        self.whole = False
        first = self._next()
        if first is None or first.name != HEAD or first.size > _MOST_HEAD:
            raise ArchiveError(f"{name}: no backup of this kit: its first file is no {HEAD}")
        self.about: dict[str, Any] = self._json(first)
        if self.about.get("format") != FORMAT:
            raise ArchiveError(
                f"{name}: found format {self.about.get('format')!r}, expected {FORMAT}: made by "
                f"version {self.about.get('kit')} of this kit; restore it with that"
            )

    def _next(self) -> tarfile.TarInfo | None:
        try:
            return self.tar.next()
        except _DAMAGED as error:
            raise self._cut(error) from None

    def _cut(self, error: Exception) -> ArchiveError:
        return ArchiveError(
            f"{self.name}: cut off, or changed since it was made ({error}). Take another backup"
        )

    def _json(self, member: tarfile.TarInfo) -> Any:
        data = self.tar.extractfile(member)
        try:
            return json.loads(data.read()) if data else None
        except _DAMAGED as error:
            raise self._cut(error) from None

    def members(self) -> Iterator[tuple[str, str, tarfile.TarInfo, Readable | None]]:
        """Part, name in it, member and content of each, in order; ``whole`` is true after the last.

        Each content must be read before the next is asked for; what is left of it is read then.

        Raises:
            ArchiveError: something is missing, changed, or not of this archive.
        """
        while (member := self._next()) is not None:
            if member.name == TAIL:
                self._compare(self._json(member))
                self._read_to_the_end()
                return
            data = self.tar.extractfile(member) if member.isreg() else None
            hashed = _Hashed(data, self._cut) if data else None
            whole = member.name  # whoever gets it may give it another
            part, _, name = whole.partition("/")
            yield part, name, member, hashed
            if hashed:
                while hashed.read(1 << 20):
                    pass
                self.found[whole] = {"size": hashed.length, "sha256": hashed.sha256()}
            else:
                self.found[whole] = {"link": member.linkname} if member.issym() else {}
        raise ArchiveError(f"{self.name}: cut off: {TAIL} is not there. Take another backup")

    def _read_to_the_end(self) -> None:
        """gzip's own sum stands there, and what decrypts must come to its end."""
        try:
            while self.unzipped.read(1 << 20):
                pass
        except _DAMAGED as error:
            raise self._cut(error) from None
        self.whole = True

    def _compare(self, expected: Any) -> None:
        if expected != self.found:
            differ = sorted(
                name for name in {*expected, *self.found}
                if expected.get(name) != self.found.get(name)
            )  # fmt: skip
            more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
            raise ArchiveError(
                f"{self.name}: changed since it was made: {', '.join(differ[:3])}{more}. "
                "Take another backup"
            )


@contextlib.contextmanager
def reading(
    archive: Path, passphrase_file: Path | None = None, identity: Path | None = None
) -> Iterator[Reader]:
    """
    Raises:
        UserError: it is not there, cannot be decrypted, or is no backup.
    """
    try:
        file = archive.open("rb")
    except OSError as error:
        raise UserError(f"{archive}: {error.strerror}") from None
    with file:
        by_passphrase = _by_passphrase(file)
        command = key_command(archive, passphrase_file, identity, by_passphrase)
        key = (
            _Filter(command, not by_passphrase, stdin=file, stdout=subprocess.PIPE)
            if command
            else None
        )
        source = key.process.stdout if key else file
        try:
            try:
                unzipped = gzip.GzipFile(fileobj=cast(IO[bytes], source))
                reader = Reader(unzipped, archive.name)
            except (*_DAMAGED, ArchiveError) as error:
                if key:
                    key.end()
                if isinstance(error, ArchiveError):
                    raise
                raise ArchiveError(f"{archive.name}: no backup of this kit ({error})") from None
            yield reader
            if key and reader.whole:
                key.end()
        finally:
            if key:
                key.kill()
