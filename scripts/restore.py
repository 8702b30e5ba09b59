#!/usr/bin/env python3
"""`make restore FILE=...`: the installation as a backup has it, here or on a bare machine.

    restore.py FILE [--force [--to DIR]] [--no-build] [--passphrase-file FILE] [--identity FILE]
    restore.py --data FILE     what an upgrade changes, in its place again; nothing is started

All of the archive is read, compared with its hashes and put beside what there is; then the services
stop, one takes the other's place, and they start. Killed before that, everything is as it was;
killed after, the same again, or make up, goes on from there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import backup
import build
import compose
import env
import password
import up
from host import restoring, volumes
from lib import archive, commands, files, settings, versions, volume
from lib.cli import UserError, run_main, say
from lib.progress import Progress, readable

UNTOUCHED = ("models", "projects", "datasets")
"""Parts of a backup that no upgrade changes."""


def refuse(about: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: this version cannot read what the archive holds.
    """
    theirs, ours = about["label_studio"], versions.label_studio()
    if not versions.at_least(ours, theirs):
        raise UserError(
            f"the backup is of Label Studio {theirs}, and this version of the kit has {ours}, "
            f"which may not read it. Check out version {about['kit']} of the kit or a newer one"
        )
    if about["database"] == backup.POSTGRES and not settings.enabled(values, "POSTGRES"):
        raise UserError(
            "the backup is of PostgreSQL, and this installation has SQLite, into which there is "
            "no way back. Restore it with POSTGRES=1, also in .env"
        )


def occupied(values: Mapping[str, str]) -> list[str]:
    """What there is that a restore would replace, but for the kit's own files."""
    return [
        f"volume {part.where} ({readable(size)})"
        for part in volumes.parts(values)
        if part.service and volumes.has_volume(part.where) and (size := part.size())
    ]


class Staging:
    """Takes the members of an archive, a part after the other."""

    def __init__(self, parts: Sequence[volumes.Part]) -> None:
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
    values: Mapping[str, str],
    postgres: str,
    bar: Progress,
    leave_out: Container[str] = (),
) -> list[str]:
    """Puts all of an archive, but for some parts, beside what there is.

    Returns:
        The names of its parts.

    Raises:
        UserError: it is not whole, or cannot be written; all is as it was then.
    """
    staging = Staging(volumes.parts(values, datasets=True))
    try:
        for part, name, member, data in reader.members():
            bar.advance(member.size, part)
            whole = f"{part}/{name}"
            if whole == backup.DUMP and data:
                stage_dump(postgres, data)
            elif whole != backup.SETTINGS and part not in leave_out:
                staging.take(part, name, member, data)
        for part in reader.about["parts"]:
            if part not in staging.staged and part not in leave_out:
                staging.open(part)  # one that was empty
        staging.close()
        bar.close()
        assert reader.whole
        if postgres and reader.about["database"] == backup.LITE:
            move_into_postgres(postgres)
    except BaseException:
        staging.discard()
        if postgres:
            volumes.sql(postgres, volumes.drop(restoring.RESTORED))
        raise
    return staging.staged


def stage_dump(postgres: str, data: archive.Readable) -> None:
    new_database(postgres)
    words = ["pg_restore", "--username", volumes.DATABASE, "--dbname", restoring.RESTORED,
             "--no-owner", "--exit-on-error"]  # fmt: skip
    process = subprocess.Popen(
        volumes.in_postgres(postgres, *words), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    said = commands.Reader(process.stderr)
    assert process.stdin is not None
    try:
        while block := data.read(1 << 20):
            process.stdin.write(block)
        process.stdin.close()
    except BrokenPipeError:
        pass  # what it has said tells why
    finally:
        code = process.wait()
    if code:
        raise UserError(f"database: {said.text() or f'exit code {code}'}")


def move_into_postgres(postgres: str) -> None:
    """Copies the SQLite database that is staged into PostgreSQL, beside the one there.

    Raises:
        UserError: it cannot be done; all is as it was then.
    """
    say("copying SQLite's rows into PostgreSQL")
    new_database(postgres)
    staged = f"/data/{volume.STAGED}/new/{Path(backup.SQLITE).name}"
    # Only the name differs from what Label Studio itself is given.
    words = [
        "run", "--rm", "--no-deps", "-T", "--env", f"POSTGRE_NAME={restoring.RESTORED}",
        "--entrypoint", "/opt/venv/bin/python", "label-studio",
    ]  # fmt: skip
    backup.piped(compose.beside(*words, "-m", "ls_kit.to_postgres", staged), "database",
                 stdout=subprocess.DEVNULL, env=compose.environment())  # fmt: skip
    backup.piped(compose.beside(*words, "-c", f"import os; os.unlink({staged!r})"), "database",
                 stdout=subprocess.DEVNULL, env=compose.environment())  # fmt: skip


def new_database(postgres: str) -> None:
    volumes.sql(
        postgres,
        volumes.drop(restoring.RESTORED),
        f'CREATE DATABASE "{restoring.RESTORED}" TEMPLATE template0',
    )


def first_look(file: Path, key: Sequence[Path | None]) -> tuple[dict[str, Any], str]:
    """What an archive says of itself, and its .env."""
    with archive.reading(file, *key) as reader:
        for part, name, _, data in reader.members():
            if f"{part}/{name}" == backup.SETTINGS and data:
                return reader.about, data.read().decode()
            break
    raise UserError(f"{file}: its settings are not there. Take another backup")


def put(
    file: Path,
    key: Sequence[Path | None],
    values: Mapping[str, str],
    leave_out: Container[str] = (),
) -> None:
    """Stages an archive; from then on ``restoring.finish`` puts it in the place of what is there.

    Raises:
        UserError: it cannot be done; all is as it was then.
    """
    with backup.database(values) as postgres, archive.reading(file, *key) as reader:
        names = stage(reader, values, postgres, Progress(file.stat().st_size), leave_out)
        restoring.begin(values, file.name, names, bool(postgres))


def data(file: Path, key: Sequence[Path | None], values: Mapping[str, str]) -> None:
    """What an upgrade changes, as a backup has it. The services are stopped, and not started.

    Raises:
        UserError: it cannot be done; the same again goes on.
    """
    if not restoring.begun(values):
        put(file, key, values, UNTOUCHED)
    restoring.finish(values)


def restore(
    file: Path,
    key: Sequence[Path | None],
    force: bool = False,
    to: Path = backup.FOLDER,
    images: bool = True,
) -> None:
    """
    force: replaces what there is, after a backup of it into the folder ``to``.
    images: builds them.

    Raises:
        UserError: it cannot be done; what was there is still there.
    """
    about, text = first_look(file, key)
    bare = not settings.env_text()
    if not bare and (begun := restoring.begun(settings.values())):
        say(f"the restore of {begun} was half done; going on with it")
        up.step("Services")
        up.start_services()
        if begun == file.name:
            return
    values = settings.values({**settings.parse_env(text), **os.environ} if bare else None)
    refuse(about, values)
    if bare:
        if settings.is_given("POSTGRES", os.environ):
            # As make up keeps what it was first given; without it the next one would begin anew.
            text = password.replaced(text, "POSTGRES", os.environ["POSTGRES"])
        files.write_private(settings.ENV_FILE, text)
        say(f"{settings.ENV_FILE}: from the backup")
    up.make_host_ready(ports=True, folders=False)
    if there := occupied(values):
        if not force:
            raise UserError(
                f"there is an installation already: {', '.join(there)}. Nothing was changed. To "
                "replace it, after a backup of it: FORCE=1"
            )
        up.step("Backup of what there is")
        say(f"{backup.make(backup.Wanted(to, lock=archive.Lock(key[0])))}")
    up.step("Settings")
    env.main()
    if images:
        up.step("Images")
        build.main([])
    values = settings.values()
    for name in ("MODELS_DIR", "PROJECTS_DIR", "DATASETS_DIR"):
        settings.host_path(values[name]).mkdir(parents=True, exist_ok=True)
    up.step("Restore")
    # Volumes as Compose makes them, which also removes them.
    if up.compose_run("create", "--no-recreate", *up.services()):
        raise UserError("the volumes could not be made; the lines above say why")
    put(file, key, values)
    up.step("Services")
    up.start_services()
    if not bare and text != settings.env_text():
        say(".env stays as it is here; the backup's is another one")


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="restore.py")
    parser.add_argument("file", type=Path)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--to", type=Path, default=backup.FOLDER)
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--data", action="store_true")
    parser.add_argument("--identity", type=Path)
    backup.add_lock(parser)
    options = parser.parse_args(words)
    key = (options.passphrase_file, options.identity)
    with up.alone(up.LOCK):
        if options.data:
            compose.need_env()
            data(options.file, key, settings.values())
            return 0
        restore(options.file, key, options.force, options.to, images=not options.no_build)
    say(f"\nrestored from {options.file.name}\n")
    say(up.summary(settings.values()))
    return 0


if __name__ == "__main__":
    run_main(main)
