#!/usr/bin/env python3
"""`make helm-backup`: what `make backup` makes, of a release in the Kubernetes cluster of kubectl's
current context, into a folder of this host. People can go on working.

    helm_backup.py [--namespace NAME] [--release NAME] [--to DIR] [--datasets] [--keep N]
                   [--passphrase-file FILE | --recipient KEY]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import backup
import helm_install
import up
from cluster import kubernetes, release, tools
from lib import ROOT, backups, commands, files, versions
from lib.cli import UserError, run_main, say

LOCK = ROOT / ".cache" / "helm.lock"
"""Held by what changes a release, one at a time."""


def make(hand: release.Hand, wanted: backup.Wanted) -> Path:
    """Makes a backup of a release.

    Returns:
        The archive.

    Raises:
        UserError: it cannot be made; nothing new is there then.
    """
    with release.source(hand, versions.project_version(), wanted.datasets) as source:
        return backups.save(source, wanted.to, wanted.lock, wanted.keep)


def fetch(hand: release.Hand, name: str, to: Path) -> Path:
    """Copies one of the backups that the chart has made.

    Returns:
        The copy.

    Raises:
        UserError: the release has none of that name.
    """
    there = f"{release.BACKUPS}/"
    names = []
    if hand.release.backups:
        listed = hand.python("import os, sys; print(*os.listdir(sys.argv[1]), sep='\\n')", there)
        names = sorted(name for name in listed.split() if not name.startswith("."))
    if name not in names:
        raise UserError(
            f"found no file {name}, here or among the backups of the release"
            + (f", which are: {', '.join(names)}" if names else "")
        )
    target = backups.ready(to, hand.release.full_name) / name
    if not target.exists():
        with files.appearing(target) as out:
            commands.piped(hand.command("label-studio", "cat", there + name), name, stdout=out)
    return target


def add_release(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--namespace", default=helm_install.RELEASE)
    parser.add_argument("--release", default="")


def found(options: argparse.Namespace) -> release.Release:
    """The release that is meant.

    Raises:
        UserError: there is none.
    """
    tools.programs()
    say(f"cluster: {kubernetes.context()}, namespace: {options.namespace}")
    return release.find(options.namespace, options.release)


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="helm_backup.py")
    backup.add_options(parser)
    add_release(parser)
    options = parser.parse_args(words)
    asked = backup.wanted(options)
    with up.alone(LOCK):
        where = found(options)
        release.need_no_restore(where)
        with release.hand(where) as hand:
            target = make(hand, asked)
    backup.tell(target, asked)
    return 0


if __name__ == "__main__":
    run_main(main)
