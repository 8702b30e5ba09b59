#!/usr/bin/env python3
"""`make helm-upgrade`: this version of the chart for a release in the Kubernetes cluster of
kubectl's current context, and back to the one before where it fails.

    helm_upgrade.py [--namespace NAME] [--release NAME] [--values FILE] [--to DIR]
                    [--passphrase-file FILE] [-- WORDS OF helm upgrade...]

Without --values the release keeps those that it was given. The chart's own test stores a prediction
before and after. Between the two Label Studio stops, a backup is made, and Helm upgrades. Where
any of this fails, the release and its data are those of before. Killed, the same again goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import backup
import helm_backup
import helm_install
import helm_restore
import restore
import up
from cluster import release
from lib import archive, commands, settings, staging
from lib.cli import UserError, run_main, say

NOTE = "upgrade"


@dataclass
class Upgrade:
    """One that was begun.

    before: the release as it ran, ``revision``, which Helm calls it, and its ``secrets``.
    started: whether pods of the new version may have written into the data.
    failed: why it is taken back; restored: whether the data are.
    """

    before: release.Release
    revision: int
    secrets: dict[str, str]
    words: list[str]
    to: str
    passphrase_file: str
    backup: str = ""
    started: bool = False
    failed: str = ""
    restored: bool = False

    @property
    def key(self) -> tuple[Path | None, None]:
        return (Path(self.passphrase_file) if self.passphrase_file else None, None)

    def write(self) -> None:
        release.write_note(self.before, NOTE, asdict(self))


def begun(where: release.Release) -> Upgrade | None:
    said = release.note(where, NOTE)
    if said is None:
        return None
    return Upgrade(**{**said, "before": release.Release(**said["before"])})


def helm(where: release.Release, *words: str) -> None:
    """Runs helm with its output shown.

    Raises:
        UserError: it failed.
    """
    commands.run([release.HELM, *words, "-n", where.namespace], stdin=subprocess.DEVNULL)


def predict(where: release.Release) -> None:
    """
    Raises:
        UserError: no prediction is stored and read back.
    """
    test = [release.HELM, "test", where.name, "-n", where.namespace, "--timeout", "5m"]
    done = subprocess.run(test, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if "TEST SUITE: None" in done.stdout:
        raise UserError("tests.enabled=false: nobody could tell what an upgrade breaks. Set it")
    if done.returncode:
        raise UserError(
            f"no prediction is stored and read back. What the test says: kubectl -n "
            f"{where.namespace} logs {where.full_name}-test"
        )


def begin(where: release.Release, options: argparse.Namespace) -> Upgrade:
    """Looks whether it can be done; nothing has changed yet.

    Raises:
        UserError: it cannot.
    """
    release.need_no_restore(where)
    up.step("A prediction with what runs")
    predict(where)
    given = options.values
    values = ["-f", str(given.absolute())] if given else ["--reset-then-reuse-values"]
    lock = options.passphrase_file
    made = Upgrade(
        where, release.revision(where), where.secrets(), [*values, *options.words],
        str(options.to.expanduser().absolute()), str(lock.absolute()) if lock else "",
    )  # fmt: skip
    made.write()
    return made


def go_on(upgrade: Upgrade) -> None:
    """
    Raises:
        UserError: it failed, and was taken back.
    """
    name = upgrade.before.name
    if not upgrade.failed:
        upgrade.failed = up.failure_of(lambda: forth(upgrade))
        if not upgrade.failed:
            release.remove_note(upgrade.before, NOTE)
            return
        upgrade.write()
        up.step("It failed")
        say(upgrade.failed)
    back(upgrade)
    raise UserError(f"{name} runs as before, since the upgrade failed: {upgrade.failed}")


def forth(upgrade: Upgrade) -> None:
    where = upgrade.before
    if not upgrade.started:
        up.step("Backup")
        # What people did after it could not be put back.
        release.scale(where, {where.label_studio["metadata"]["name"]: 0})
        with release.hand(where) as hand:
            asked = backup.Wanted(Path(upgrade.to), lock=archive.Lock(upgrade.key[0]))
            upgrade.backup = str(helm_backup.make(hand, asked))
        say(upgrade.backup)
        upgrade.started = True
        upgrade.write()
    up.step("Upgrade")
    helm(where, "upgrade", where.name, str(helm_install.CHART), "--wait", "--timeout",
         helm_install.WITHIN, *upgrade.words)  # fmt: skip
    up.step("A prediction with the new version")
    predict(where)


def back(upgrade: Upgrade) -> None:
    """
    Raises:
        UserError: it cannot be done; the same again goes on.
    """
    where = upgrade.before
    up.step(f"Back to revision {upgrade.revision}")
    if upgrade.started and not upgrade.restored:
        release.scale(where, dict.fromkeys(helm_restore.replicas(where), 0))
        # By the images of before, which know the data.
        with release.hand(where) as hand:
            half: dict[str, Any] | None = release.note(where, release.RESTORE)
            if half is None:
                file = Path(upgrade.backup)
                _, text = staging.first_look(file, upgrade.key)
                given = settings.parse_env(text)
                half = helm_restore.put(hand, file, upgrade.key, given, {}, restore.UNTOUCHED)
            helm_restore.finish(hand, half)
        upgrade.restored = True
        upgrade.write()
    # The Secret is kubectl's where a restore has written it; it gets its values again below.
    helm(where, "rollback", where.name, str(upgrade.revision), "--no-hooks", "--force-conflicts")
    if where.secrets() != upgrade.secrets:
        # Helm puts back those that it has made; a restore has brought others since.
        helm_restore.give(where, upgrade.secrets)
        release.scale(where, dict.fromkeys(helm_restore.replicas(where), 0))
    release.scale(where, helm_restore.replicas(where))
    release.remove_note(where, NOTE)
    try:
        release.setup_again(where)
    except UserError as failure:
        say(str(failure))


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="helm_upgrade.py")
    parser.add_argument("--values", type=Path)
    parser.add_argument("--to", type=Path, default=backup.FOLDER)
    parser.add_argument("words", nargs="*")
    backup.add_lock(parser)
    helm_backup.add_release(parser)
    options = parser.parse_args(words)
    with up.alone(helm_backup.LOCK):
        where = helm_backup.found(options)
        upgrade = begun(where)
        if upgrade:
            say("an upgrade was half done; going on with it")
        upgrade = upgrade or begin(where, options)
        go_on(upgrade)
    say(f"\n{where.name} is upgraded. The backup of before: {upgrade.backup}")
    return 0


if __name__ == "__main__":
    run_main(main)
