"""Makes a backup of this installation, the same archive as `make backup` makes.

    python -m ls_kit.backup --project NAME --kit VERSION [--volume PART=FOLDER]...
        [--folder PART=FOLDER]... [--dump FILE] [--to FOLDER | --bucket NAME [--prefix FOLDER]]
        [--keep N] [--passphrase-file FILE]

``--volume``: a claim; ``--folder``: a ConfigMap, whose files are more of its part. Passwords and
keys come by the environment, and the access to a bucket as boto3 looks for it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from lib import archive, backups, parts
from lib.cli import run_main, say
from ls_kit import bucket


class Mounted(parts.Part):
    """A volume that is mounted in this container."""

    def volume(self, action: str) -> list[str]:
        return [sys.executable, str(parts.TEXT), action, self.where]


def named(text: str) -> tuple[str, str]:
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected PART=FOLDER")
    return name, folder


def found(options: argparse.Namespace) -> list[parts.Part]:
    mounted = [
        Mounted(name, folder, backups.ELSEWHERE.get(name, ())) for name, folder in options.volume
    ]
    # A ConfigMap's files are links into a folder whose name begins so.
    folders = [
        parts.Folder(name, folder, tuple(p.name for p in Path(folder).glob("..*")))
        for name, folder in options.folder
    ]
    return [*mounted, *folders]


def source(options: argparse.Namespace, environ: Mapping[str, str]) -> backups.Source:
    dump = options.dump
    return backups.Source(
        options.project, options.kit, importlib.metadata.version("label-studio"),
        backups.settings_text(environ, bool(dump)), found(options),
        (lambda _: dump.open("rb")) if dump else None, dump.stat().st_size if dump else 0,
        backups.keys(environ.get("SECRET_KEY", "")),
    )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="ls_kit.backup")
    made.add_argument("--project", required=True)
    made.add_argument("--kit", required=True)
    made.add_argument("--volume", type=named, action="append", default=[])
    made.add_argument("--folder", type=named, action="append", default=[])
    made.add_argument("--dump", type=Path)
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", type=Path)
    where.add_argument("--bucket", default="")
    made.add_argument("--prefix", default="")
    made.add_argument("--region", default="")
    made.add_argument("--endpoint", default="")
    made.add_argument("--keep", type=int, default=0)
    made.add_argument("--passphrase-file", type=Path)
    return made


def main(words: Sequence[str] | None = None) -> int:
    options = parser().parse_args(words)
    lock = archive.Lock(options.passphrase_file)
    if not options.passphrase_file:
        say("not encrypted: whoever reads the backup has every password and token in it")
    made = source(options, os.environ)
    if options.bucket:
        there = bucket.Bucket(options.bucket, options.prefix, options.region, options.endpoint)
        said = bucket.save(made, there, lock, options.keep)
    else:
        said = str(backups.save(made, options.to, lock, options.keep))
    say(f"{said}: whole")
    return 0


if __name__ == "__main__":
    run_main(partial(main))
