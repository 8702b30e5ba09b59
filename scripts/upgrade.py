#!/usr/bin/env python3
"""`make upgrade`: another version of this kit, and back to the one before where it fails.

    upgrade.py [VERSION] [--to DIR] [--passphrase-file FILE]
    upgrade.py --from VERSION        that one runs, and another was checked out since

The new version's own script goes on as soon as it is checked out: new images beside those that run;
then the services stop, a backup is made, they start on the data, which Label Studio brings up to
date, and a prediction is made, stored and read back. Where any of this fails, checkout, images and
data are those of before, and run. Killed, the same again goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import backup
import build
import compose
import demo
import doctor
import env
import restore
import up
from host import restoring, upgrading, volumes
from lib import ROOT, archive, commands, docker, files, git, settings, versions
from lib.cli import UserError, run_main, say

OURS = ("models", "projects")
"""Folders of the user, of which earlier versions had files among their own."""


@dataclass
class Upgrade:
    """One that was begun.

    before, after: branches or commits.
    images: those that ran, by the tags that they had.
    worked: projects of which a prediction could be stored; None: nobody asked.
    started: whether services of the new version may have written into the data.
    failed: why it is taken back; restored: whether the data are.
    """

    before: str
    after: str
    to: str
    passphrase_file: str = ""
    images: dict[str, str] = field(default_factory=dict)
    worked: list[str] | None = None
    backup: str = ""
    started: bool = False
    failed: str = ""
    restored: bool = False

    @property
    def passphrase(self) -> Path | None:
        return Path(self.passphrase_file) if self.passphrase_file else None

    def write(self) -> None:
        path = upgrading.journal(settings.values())
        path.parent.mkdir(exist_ok=True)
        files.write_private(path, json.dumps(asdict(self), indent=1))


def begun() -> Upgrade | None:
    """Raises: UserError: the file of one cannot be read."""
    path = upgrading.journal(settings.values())
    try:
        return Upgrade(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


# Before anything has changed


def begin(options: argparse.Namespace) -> Upgrade | None:
    """Looks whether it can be done.

    Returns:
        What is to be done; nothing where it is done already.

    Raises:
        UserError: it cannot.
    """
    git.need_clone()
    restoring.need_none(settings.values())
    if options.before:
        before, after = options.before, git.here()
    else:
        before, after = git.here(), options.version or git.newest()
        if not after:
            raise UserError("this clone knows no release. Name a version: make upgrade VERSION=...")
    if git.commit_of(before) == git.commit_of(after):
        say(f"{after} is what this clone is at. Newer versions come by: git fetch --tags")
        return None
    refuse(after)
    upgrade = Upgrade(
        before, after, str(options.to.expanduser().absolute()),
        str(options.passphrase_file.absolute()) if options.passphrase_file else "", running(),
    )  # fmt: skip
    if not options.before:
        up.step("A prediction with what runs")
        upgrade.worked = sorted(predicted())
    return upgrade


def refuse(after: str) -> None:
    """
    Raises:
        UserError: that version cannot take over what runs.
    """
    commit = git.commit_of(after)
    if not git.text_at(commit, "scripts/upgrade.py"):
        raise UserError(
            f"{after} is older than make upgrade. To go back to it: check it out, and make restore "
            "a backup that it made"
        )
    theirs = versions.label_studio(git.text_at(commit, versions.LOCK))
    ours = volumes.label_studio_version(settings.values()["COMPOSE_PROJECT_NAME"])
    if not versions.at_least(theirs, ours):
        raise UserError(
            f"{after} has Label Studio {theirs}, and {ours} runs, whose data it may not read. The "
            "way back is a backup of that time: check that version out, and make restore FILE="
        )


def running() -> dict[str, str]:
    """The images of the services' containers, by the tags that they had.

    Raises:
        UserError: nothing runs.
    """
    project = settings.values()["COMPOSE_PROJECT_NAME"]
    found = {}
    for service in up.SERVICES:
        for container in docker.containers(project, service, running=True)[:1]:
            form = "{{.Config.Image}} {{.Image}}"
            said = commands.output([docker.client(), "inspect", "--format", form, container])
            tag, _, identifier = (said or "").partition(" ")
            found[tag] = identifier
    if len(found) < len(up.SERVICES):
        raise UserError("the services do not run, so nobody could tell what an upgrade breaks. "
                        "Run: make up")  # fmt: skip
    return found


def predicted() -> set[str]:
    """The projects of which a prediction was made, stored and read back."""
    lines = [*doctor.inside("", ["prediction"])]
    for line in lines:
        say(f"  {line}")
    return {
        line.subject for line in lines if line.check == "prediction" and line.level == doctor.OK
    }


def hand_over() -> int:
    """The version that is checked out by now goes on; this one is there in case that it cannot.

    Returns:
        The exit code.
    """
    sys.stdout.flush()
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts" / "upgrade.py")])
    # Ctrl-C is for the other, which goes back then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = process.wait()
    with up.alone(up.LOCK):
        left = begun()
        if code and left and not left.started and not left.failed:
            left.failed = f"its scripts/upgrade.py ends with exit code {code}"
            left.write()
            go_on(left)
    return code


# Forth


def go_on(upgrade: Upgrade) -> None:
    """
    Raises:
        UserError: it failed, and was taken back.
    """
    if not upgrade.failed:
        upgrade.failed = up.failure_of(lambda: forth(upgrade))
        if not upgrade.failed:
            return
        upgrade.write()
        up.step("It failed")
        say(upgrade.failed)
    back(upgrade)
    raise UserError(
        f"{upgrade.before} runs as before, since {upgrade.after} failed: {upgrade.failed}"
    )


def forth(upgrade: Upgrade) -> None:
    for tag, identifier in upgrade.images.items():
        commands.run([docker.client(), "tag", identifier, kept(tag)])
    up.make_host_ready(ports=True, folders=False)
    up.step("Settings")
    env.main()
    up.step("Demo files")
    demo.main()
    up.step("Images")
    build.main([])
    if not upgrade.started:
        up.step("Backup")
        # What people did after it could not be put back.
        if up.compose_run("stop", *up.SERVICES):
            raise UserError("the services could not be stopped; the lines above say why")
        lock = archive.Lock(upgrade.passphrase)
        upgrade.backup = str(backup.make(backup.Wanted(Path(upgrade.to), lock=lock)))
        say(upgrade.backup)
        upgrade.started = True
        upgrade.write()
    up.step("Services")
    up.start_services()
    up.check_gpu()
    up.step("A prediction with the new version")
    compare(upgrade.worked, predicted())


def compare(worked: Sequence[str] | None, works: set[str]) -> None:
    """
    worked: projects of which a prediction could be stored before; None: nobody asked.

    Raises:
        UserError: a prediction that was stored before is not any more.
    """
    missing = sorted(set(worked or ()) - works)
    if missing or (worked is None and not works):
        where = f" in {', '.join(missing)}" if missing else ""
        raise UserError(f"no prediction is stored and read back any more{where}")


def kept(tag: str) -> str:
    """That of an image that ran, until it is sure that nobody wants it any more."""
    return f"{tag.rpartition(':')[0]}:before-upgrade-{settings.values()['COMPOSE_PROJECT_NAME']}"


def finish(upgrade: Upgrade) -> None:
    """Lets go of what was kept for the way back."""
    for tag in upgrade.images:
        commands.output([docker.client(), "image", "rm", kept(tag)])
    upgrading.journal(settings.values()).unlink()
    build.remove_replaced()


# Back


def back(upgrade: Upgrade) -> None:
    """
    Raises:
        UserError: it cannot be done; the same again goes on.
    """
    values = settings.values()
    up.step(f"Back to {upgrade.before}")
    if upgrade.started and not upgrade.restored:
        restore.data(Path(upgrade.backup), (upgrade.passphrase, None), values)
        upgrade.restored = True
        upgrade.write()
    for tag, identifier in upgrade.images.items():
        commands.run([docker.client(), "tag", identifier, tag])
    git.check_out(upgrade.before, OURS)
    # By its own script, which knows what it needs.
    commands.run([
        sys.executable, str(ROOT / "scripts" / "compose.py"), "--progress", "quiet", "up", "-d",
        "--wait", "--wait-timeout", str(up.HEALTHY_WITHIN), *up.SERVICES,
    ])  # fmt: skip
    finish(upgrade)


# The command


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="upgrade.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("version", nargs="?", default="")
    made.add_argument("--from", dest="before", default="")
    made.add_argument("--to", type=Path, default=backup.FOLDER)
    backup.add_lock(made)
    return made


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    options = parser().parse_args(words)
    if options.version and options.before:
        raise UserError("found VERSION and FROM, expected one of them")
    compose.need_env()
    with up.alone(up.LOCK):
        upgrade = begun()
        if upgrade and options.version not in ("", upgrade.after):
            raise UserError(
                f"an upgrade to {upgrade.after} is half done. Run make upgrade, which ends it, "
                "then this again"
            )
        if upgrade is None:
            upgrade = begin(options)
            if upgrade is None:
                return 0
            upgrade.write()
        if upgrade.failed or check_out(upgrade.after):
            return ended(upgrade)
    return hand_over()


def check_out(version: str) -> bool:
    """Whether this script is that version's already."""
    same = git.commit_of("HEAD") == git.commit_of(version)
    git.check_out(version, OURS)
    return same


def ended(upgrade: Upgrade) -> int:
    go_on(upgrade)
    up.step("Projects")
    # Its faults are of a project's file, not of the version.
    code = up.setup_once()
    finish(upgrade)
    up.step(f"{upgrade.after} runs")
    if code:
        say("setup did not reach its goal; the lines above say why. Then: make setup")
    say(f"The backup of before: {upgrade.backup}")
    say(up.summary(settings.values()))
    return 0


if __name__ == "__main__":
    run_main(main)
