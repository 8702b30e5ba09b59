#!/usr/bin/env python3
"""`make backup`: one file that has all of this installation, made while it runs.

    backup.py [--to DIR] [--datasets] [--keep N] [--passphrase-file FILE | --recipient KEY]
              [--metrics FILE.prom]
    backup.py verify FILE [--passphrase-file FILE] [--identity FILE]

Database, uploads and exports, the backend's data, models, projects, settings; the images of
datasets/ with --datasets. The file has its name once it is whole and on the disk.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import compose
import up
from host import restoring, volumes
from lib import ROOT, archive, commands, docker, files, settings, versions
from lib.cli import UserError, run_main, say
from lib.progress import Progress, readable

FOLDER = ROOT / "backups"
SETTINGS = "settings/.env"
DUMP = "database/label-studio.dump"
SQLITE = "label-studio/label_studio.sqlite3"
POSTGRES, LITE = "PostgreSQL", "SQLite"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a backup.

    keep: how many of this installation stay in the folder; 0: all.
    """

    to: Path = FOLDER
    datasets: bool = False
    keep: int = 0
    lock: archive.Lock = field(default_factory=archive.Lock)


def about(
    values: Mapping[str, str], now: datetime.datetime, parts: Sequence[volumes.Part]
) -> dict[str, Any]:
    """What the archive says of itself."""
    return {
        "made": now.isoformat(timespec="seconds"),
        "project": values["COMPOSE_PROJECT_NAME"],
        "kit": versions.project_version(),
        "label_studio": volumes.label_studio_version(values["COMPOSE_PROJECT_NAME"]),
        "database": POSTGRES if settings.enabled(values, "POSTGRES") else LITE,
        "parts": [part.name for part in parts],
    }


def make(wanted: Wanted) -> Path:
    """Makes a backup of what there is.

    Returns:
        The archive.

    Raises:
        UserError: it cannot be made; nothing new is there then.
    """
    compose.need_env()
    values = settings.values()
    restoring.need_none(values)
    parts = volumes.parts(values, wanted.datasets)
    for part in parts:
        if part.service and not volumes.has_volume(part.where):
            raise UserError(f"found no volume {part.where}: nothing to save yet. Run: make up")
    now = datetime.datetime.now(datetime.UTC)
    project = values["COMPOSE_PROJECT_NAME"]
    name = f"{project}-{now:%Y%m%dT%H%M%SZ}.tar.gz{wanted.lock.ending}"
    folder = ready(wanted.to, project)
    sizes = {part.name: part.size() for part in parts}
    with database(values) as container:
        if container:
            size = volumes.sql(container, f"SELECT pg_database_size('{volumes.DATABASE}')")
            sizes["database"] = int(size)
        check_space(folder, sum(sizes.values()) + sizes.get("database", 0))
        target = folder / name
        with files.appearing(target) as out:
            writer = archive.Writer(out, about(values, now, parts), wanted.lock)
            try:
                fill(writer, parts, container, folder, Progress(sum(sizes.values())))
                writer.finish()
            finally:
                writer.kill()
    remove_old(folder, project, wanted.keep)
    return target


def ready(folder: Path, project: str) -> Path:
    """The folder, without what a run that was killed left in it."""
    folder = folder.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}. Name another folder: TO=DIR") from None
    for left in folder.glob(f".{project}-*.part"):
        left.unlink()
    return folder


def check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {readable(free)} are free, up to {readable(needed)} are needed. Make room, "
            "or name another folder: TO=DIR"
        )


@contextmanager
def database(values: Mapping[str, str]) -> Iterator[str]:
    """PostgreSQL's container; empty with SQLite, which lies among Label Studio's files."""
    if settings.enabled(values, "POSTGRES"):
        with restoring.postgres(values["COMPOSE_PROJECT_NAME"]) as container:
            yield container
    else:
        yield ""


def fill(
    writer: archive.Writer,
    parts: Sequence[volumes.Part],
    postgres: str,
    folder: Path,
    bar: Progress,
) -> None:
    writer.add_file(SETTINGS, settings.ENV_FILE)
    if postgres:
        # Before the files: an upload that it names was there before. Its size must be known first.
        with tempfile.TemporaryFile(dir=folder) as dump:
            words = ["pg_dump", "--username", volumes.DATABASE, "--format", "custom",
                     "--compress", "0", volumes.DATABASE]  # fmt: skip
            piped(volumes.in_postgres(postgres, *words), "database", stdout=dump)
            member = tarfile.TarInfo(DUMP)
            member.size, member.mode = os.fstat(dump.fileno()).st_size, 0o600
            dump.seek(0)
            writer.add(member, Counted(dump, bar, "database"))
    for part in parts:
        process = subprocess.Popen(
            part.command("save"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        said = commands.Reader(process.stderr)
        try:
            assert process.stdout is not None
            try:
                writer.add_tar(part.name, Counted(process.stdout, bar, part.name))
            except archive.ArchiveError:
                # What it says itself tells more.
                if not process.wait():
                    raise
            if process.wait():
                raise UserError(f"{part.name}: {said.text() or f'exit code {process.returncode}'}")
        finally:
            process.kill()
            process.wait()
    bar.close()


class Counted:
    """A file that tells a progress bar what is read of it."""

    def __init__(self, file: IO[bytes], bar: Progress, what: str) -> None:
        self.file, self.bar, self.what = file, bar, what

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.bar.advance(len(data), self.what)
        return data


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


def archives(folder: Path, project: str) -> list[Path]:
    """Those of an installation, the oldest first."""
    form = re.compile(rf"{re.escape(project)}-\d{{8}}T\d{{6}}Z\.tar\.gz(\.gpg|\.age)?")
    return sorted(path for path in folder.iterdir() if form.fullmatch(path.name))


def remove_old(folder: Path, project: str, keep: int) -> None:
    for path in archives(folder, project)[:-keep] if keep else []:
        path.unlink()
        say(f"{path}: removed, {keep} newer ones are there")


# Looking at one


def verify(file: Path, passphrase_file: Path | None, identity: Path | None) -> str:
    """Reads all of an archive, compares the hashes, and opens the database.

    Returns:
        What it holds, for people.

    Raises:
        UserError: it is no whole backup.
    """
    bar = Progress(file.stat().st_size if file.is_file() else 0)
    with archive.reading(file, passphrase_file, identity) as reader:
        answers = ""
        for part, name, member, data in reader.members():
            whole = f"{part}/{name}"
            bar.advance(member.size, part)
            if whole == SQLITE and data:
                answers = sqlite_answers(file, data)
            elif whole == DUMP and data:
                answers = dump_answers(file, data)
        bar.close()
    if not answers:
        raise UserError(f"{file}: holds no database. Take another backup")
    said = reader.about
    size = sum(found.get("size", 0) for found in reader.found.values())
    more = ", with the images of datasets/" if "datasets" in said["parts"] else ""
    return (
        f"{file.name}: whole\n"
        f"made           {said['made']}, of {said['project']}, by version {said['kit']}\n"
        f"Label Studio   {said['label_studio']}, {said['database']}: {answers}\n"
        f"files          {len(reader.found)}, {readable(size)}{more}"
    )


def sqlite_answers(file: Path, data: archive.Readable) -> str:
    with tempfile.TemporaryDirectory(prefix="ls-yolo-verify-") as folder:
        copy = Path(folder, "db")
        with copy.open("wb") as target:
            shutil.copyfileobj(data, target, 1 << 20)
        try:
            with closing(sqlite3.connect(f"{copy.as_uri()}?immutable=1", uri=True)) as opened:
                (state,) = opened.execute("PRAGMA integrity_check(1)").fetchone()
                if state != "ok":
                    raise UserError(f"{file}: the database is damaged: {state}")
                counts = [
                    opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                    for table in ("project", "task", "task_completion", "prediction")
                ]
        except sqlite3.Error as error:
            raise UserError(f"{file}: the database cannot be opened: {error}") from None
    return "{} projects, {} tasks, {} annotations, {} predictions".format(*counts)


def dump_answers(file: Path, data: archive.Readable) -> str:
    """Asks PostgreSQL's own program for the list of what is in a dump."""
    with tempfile.TemporaryFile() as dump:
        shutil.copyfileobj(data, dump, 1 << 20)
        dump.seek(0)
        command = [
            docker.client(), "run", "--rm", "--interactive", "--network", "none", "--log-driver",
            "none", "--entrypoint", "pg_restore", versions.POSTGRES_IMAGE, "--list",
        ]  # fmt: skip
        done = subprocess.run(command, stdin=dump, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{file}: the database cannot be opened: {done.stderr.strip()}")
    tables = sum(" TABLE DATA " in line for line in done.stdout.splitlines())
    return f"{tables} tables"


# The command


def add_lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--passphrase-file", type=Path)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="backup.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--to", type=Path, default=FOLDER)
    made.add_argument("--datasets", action="store_true")
    made.add_argument("--keep", type=number, default=0)
    made.add_argument("--recipient", default="")
    made.add_argument("--metrics", type=metrics_file)
    add_lock(made)
    return made


def metrics_file(text: str) -> Path:
    if not text.endswith(".prom"):
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a name that ends in .prom: the node exporter reads no other"
        )
    path = Path(text)
    try:
        path.open("a").close()  # before the work, whose end it is to tell
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return path


def metrics(project: str, made: float, size: int) -> str:
    """What Prometheus' node exporter reads of a backup that is whole."""
    labels = f'{{project="{project}"}}'
    return (
        "# HELP ls_yolo_backup_last_success_timestamp_seconds When the last backup was whole.\n"
        "# TYPE ls_yolo_backup_last_success_timestamp_seconds gauge\n"
        f"ls_yolo_backup_last_success_timestamp_seconds{labels} {int(made)}\n"
        "# HELP ls_yolo_backup_size_bytes Size of that backup.\n"
        "# TYPE ls_yolo_backup_size_bytes gauge\n"
        f"ls_yolo_backup_size_bytes{labels} {size}\n"
    )


def number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected how many to keep, 1 or more")
    return int(text)


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    if words[:1] == ["verify"]:
        looking = argparse.ArgumentParser(prog="backup.py verify")
        looking.add_argument("file", type=Path)
        looking.add_argument("--identity", type=Path)
        add_lock(looking)
        options = looking.parse_args(words[1:])
        say(verify(options.file, options.passphrase_file, options.identity))
        return 0
    options = parser().parse_args(words)
    lock = archive.Lock(options.passphrase_file, options.recipient)
    with up.alone(up.LOCK):
        target = make(Wanted(options.to, options.datasets, options.keep, lock))
    found = target.stat()
    say(f"{target}: {readable(found.st_size)}")
    if options.metrics:
        project = settings.values()["COMPOSE_PROJECT_NAME"]
        # In place: the folder is the exporter's, and only the file this user's.
        options.metrics.write_text(metrics(project, found.st_mtime, found.st_size))
    if not lock.ending:
        say(
            "It is not encrypted: whoever can read it has every password and token of this "
            "installation. To encrypt it: PASSPHRASE_FILE=FILE or RECIPIENT=KEY"
        )
    if not options.datasets:
        say("The images of datasets/ are not in it. With them: DATASETS=1")
    return 0


if __name__ == "__main__":
    run_main(main)
