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
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import compose
import up
from host import restoring, volumes
from lib import ROOT, archive, backups, docker, postgres, settings, versions
from lib.cli import UserError, run_main, say
from lib.progress import Progress, readable

FOLDER = ROOT / "backups"


@dataclass(frozen=True)
class Wanted:
    """What is asked of a backup.

    keep: how many of this installation stay in the folder; 0: all.
    """

    to: Path = FOLDER
    datasets: bool = False
    keep: int = 0
    lock: archive.Lock = field(default_factory=archive.Lock)


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
        if isinstance(part, volumes.Volume) and not volumes.has_volume(part.where):
            raise UserError(f"found no volume {part.where}: nothing to save yet. Run: make up")
    project = values["COMPOSE_PROJECT_NAME"]
    with database(values) as server:
        source = backups.Source(
            project, versions.project_version(), volumes.label_studio_version(project),
            settings.ENV_FILE.read_bytes(), parts, server.dump if server else None,
            server.size() if server else 0,
        )  # fmt: skip
        return backups.save(source, wanted.to, wanted.lock, wanted.keep)


@contextmanager
def database(values: Mapping[str, str]) -> Iterator[postgres.Server | None]:
    """PostgreSQL; none with SQLite, which lies among Label Studio's files."""
    if settings.enabled(values, "POSTGRES"):
        with restoring.postgres(values["COMPOSE_PROJECT_NAME"]) as server:
            yield server
    else:
        yield None


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
            if whole == backups.SQLITE and data:
                answers = sqlite_answers(file, data)
            elif whole == backups.DUMP and data:
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is asked of a backup, of whatever installation."""
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--datasets", action="store_true")
    parser.add_argument("--keep", type=number, default=0)
    parser.add_argument("--recipient", default="")
    add_lock(parser)


def wanted(options: argparse.Namespace) -> Wanted:
    lock = archive.Lock(options.passphrase_file, options.recipient)
    return Wanted(options.to, options.datasets, options.keep, lock)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="backup.py", description=(__doc__ or "").splitlines()[0])
    add_options(made)
    made.add_argument("--metrics", type=metrics_file)
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
    asked = wanted(options)
    with up.alone(up.LOCK):
        target = make(asked)
    if options.metrics:
        found = target.stat()
        project = settings.values()["COMPOSE_PROJECT_NAME"]
        # In place: the folder is the exporter's, and only the file this user's.
        options.metrics.write_text(metrics(project, found.st_mtime, found.st_size))
    tell(target, asked)
    return 0


def tell(target: Path, asked: Wanted) -> None:
    """Says what was made, and what a person should know of it."""
    say(f"{target}: {readable(target.stat().st_size)}")
    if not asked.lock.ending:
        say(
            "It is not encrypted: whoever can read it has every password and token of this "
            "installation. To encrypt it: PASSPHRASE_FILE=FILE or RECIPIENT=KEY"
        )
    if not asked.datasets:
        say("The images of datasets/ are not in it. With them: DATASETS=1")


if __name__ == "__main__":
    run_main(main)
