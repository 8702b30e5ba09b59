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
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import backup
import build
import compose
import env
import password
import up
from host import restoring, upgrading, volumes
from lib import archive, backups, commands, files, postgres, settings, staging, versions, volume
from lib.cli import UserError, run_main, say
from lib.progress import Progress, readable

UNTOUCHED = ("models", "projects", "datasets")
"""Parts of a backup that no upgrade changes."""


def refuse(about: Mapping[str, Any], values: Mapping[str, str]) -> None:
    """
    Raises:
        UserError: this version cannot read what the archive holds.
    """
    staging.refuse(
        about, versions.label_studio(), settings.enabled(values, "POSTGRES"),
        "Restore it with POSTGRES=1, also in .env",
    )  # fmt: skip


def occupied(values: Mapping[str, str]) -> list[str]:
    """What there is that a restore would replace, but for the kit's own files."""
    return [
        f"volume {part.where} ({readable(size)})"
        for part in volumes.parts(values)
        if isinstance(part, volumes.Volume)
        and volumes.has_volume(part.where)
        and (size := part.size())
    ]


def move_into_postgres(server: postgres.Server) -> None:
    """Copies the SQLite database that is staged into PostgreSQL, beside the one there.

    Raises:
        UserError: it cannot be done; all is as it was then.
    """
    say("copying SQLite's rows into PostgreSQL")
    staged = f"/data/{volume.STAGED}/new/{Path(backups.SQLITE).name}"
    # Only the name differs from what Label Studio itself is given.
    words = [
        "run", "--rm", "--no-deps", "-T", "--env", f"POSTGRE_NAME={server.restored}",
        "--entrypoint", "/opt/venv/bin/python", "label-studio",
    ]  # fmt: skip
    commands.piped(compose.beside(*words, "-m", "ls_kit.to_postgres", staged), "database",
                 stdout=subprocess.DEVNULL, env=compose.environment())  # fmt: skip
    commands.piped(compose.beside(*words, "-c", f"import os; os.unlink({staged!r})"), "database",
                 stdout=subprocess.DEVNULL, env=compose.environment())  # fmt: skip


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
    with backup.database(values) as server, archive.reading(file, *key) as reader:
        names = staging.stage(
            reader, volumes.parts(values, datasets=True), server, move_into_postgres,
            Progress(file.stat().st_size), leave_out,
        )  # fmt: skip
        restoring.begin(values, file.name, names, bool(server))


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
    upgrading.need_none(settings.values())
    about, text = staging.first_look(file, key)
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
        # Of the images too, where the backup's take their place.
        wanted = backup.Wanted(to, "datasets" in about["parts"], lock=archive.Lock(key[0]))
        say(f"{backup.make(wanted)}")
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is asked of a restore, of whatever installation."""
    parser.add_argument("file", type=Path)
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--to", type=Path, default=backup.FOLDER)
    parser.add_argument("--identity", type=Path)
    backup.add_lock(parser)


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="restore.py")
    add_options(parser)
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--data", action="store_true")
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
