#!/usr/bin/env python3
"""`make helm-restore FILE=...`: a release in the Kubernetes cluster of kubectl's current context as
a backup has it, which may come from Docker Compose.

    helm_restore.py FILE [--namespace NAME] [--release NAME] [--force] [--to DIR]
                    [--passphrase-file FILE] [--identity FILE]

FILE is one of this host, or the name of one that the chart has made; DIR gets a copy of it first.
All of the archive is read, compared with its hashes and put beside what there is, while people
work; then Label Studio and the backend stop, one takes the other's place, and they start. Killed
before that, everything is as it was; killed after, the same again goes on from there.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import backup
import helm_backup
import up
from cluster import kubernetes, release
from lib import archive, backups, commands, postgres, settings, staging, volume
from lib.cli import UserError, run_main, say
from lib.progress import Progress
from restore import add_options

INSTEAD = "Upgrade the release with postgres.enabled=true first: docs/kubernetes.md"
STAGED = f"/data/{volume.STAGED}/new"
COUNT = (
    "import contextlib, sqlite3\n"
    "with contextlib.closing(sqlite3.connect('file:/data/label_studio.sqlite3?mode=ro', uri=True)) "
    "as db: print(db.execute('SELECT count(*) FROM project').fetchone()[0])"
)
LEFT = {
    "models": "models/: the release has its weights from elsewhere (models.type), and keeps those",
    "projects": "projects/: these are values of the chart, which stay as they are. Those of the "
    "backup, to compare: tar -xzf FILE projects",
    "datasets": "datasets/: the release may not write there, so they are not restored",
}
S3_MEDIA = (
    "labelStudio.s3: uploads are in that bucket, and no backup has them. Those of this one lie in "
    "/data/media, where Label Studio does not look: copy them into the bucket"
)


def finish(hand: release.Hand, said: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: something cannot be moved; the same again goes on from there.
    """
    where = hand.release
    say("putting what is restored in its place")
    release.scale(where, dict.fromkeys(said["replicas"], 0))
    for part in hand.parts:
        if part.name in said["parts"]:
            part.run("commit")
    if hand.server:
        hand.server.exchange()
    give(where, said["secrets"])
    say("starting Label Studio and the backend")
    release.scale(where, said["replicas"])
    release.remove_note(where, release.RESTORE)


def replicas(where: release.Release) -> dict[str, int]:
    """How many pods the Deployments have."""
    both = (where.label_studio, where.backend)
    return {one["metadata"]["name"]: one["spec"]["replicas"] for one in both}


def give(where: release.Release, secrets: Mapping[str, str]) -> None:
    """Puts passwords, token and key into the release's Secret; no command line has them."""
    data = {name: base64.b64encode(value.encode()).decode() for name, value in secrets.items()}
    kubernetes.kubectl("patch", "secret", where.secret_name, "-n", where.namespace, "--type=merge",
                       "--patch-file=/dev/stdin", stdin=json.dumps({"data": data}))  # fmt: skip


# Before that


def refuse(hand: release.Hand, about: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """
    given: the settings of the backup.

    Raises:
        UserError: the release cannot become what the archive holds.
    """
    where = hand.release
    staging.refuse(about, hand.label_studio_version, where.postgres, INSTEAD)
    in_s3 = where.env.get("STORAGE_TYPE") == "s3" and about["database"] == backups.POSTGRES
    if "label-studio" not in where.mounts and not in_s3:
        raise UserError(
            "labelStudio.persistence.enabled=false: what is restored would go with the pod. "
            "Upgrade the release with a claim first"
        )
    if hand.server:
        hand.server.need_rights()
    name = "LABEL_STUDIO_USERNAME"
    theirs, ours = given.get(name, ""), where.env.get(name, "")
    if theirs and theirs.strip().lower() != ours.strip().lower():
        raise UserError(
            f"the backup's first user is {theirs}, and the release's {ours}, which it would get "
            f"beside that one. Upgrade it with labelStudio.env.{name}={theirs}, then this again"
        )


def projects(hand: release.Hand) -> int:
    """How many projects there are, which a restore would replace."""
    server = hand.server
    if server:
        return int(server.sql("SELECT count(*) FROM project", database=server.database))
    return int(hand.python(COUNT))


def worth_saving(hand: release.Hand, force: bool) -> bool:
    """Whether there is something that is saved before it is replaced.

    Raises:
        UserError: there is, and nobody has said that it may be replaced.
    """
    try:
        number = projects(hand)
    except UserError as failure:
        if not force:
            raise UserError(
                f"the database of {hand.release.name} cannot be read: {failure}\nNothing was "
                "changed. To replace it, without a backup of it: FORCE=1"
            ) from None
        say(f"not saved, since it cannot be read: the database that is there ({failure})")
        return False
    if number and not force:
        raise UserError(
            f"the release {hand.release.name} has {number} projects already. Nothing was changed. "
            "To replace them, after a backup of them: FORCE=1"
        )
    return number > 0


def move(hand: release.Hand, server: postgres.Server) -> None:
    """Copies the SQLite database that is staged into PostgreSQL, beside the one there."""
    say("copying SQLite's rows into PostgreSQL")
    file = f"{STAGED}/{Path(backups.SQLITE).name}"
    # Only the name differs from what Label Studio itself is given.
    words = ("env", f"POSTGRE_NAME={server.restored}", "python", "-m", "ls_kit.to_postgres", file)
    commands.piped(hand.command("label-studio", *words), "database", stdout=sys.stderr)
    hand.python("import os, sys; os.unlink(sys.argv[1])", file)


def put(
    hand: release.Hand,
    file: Path,
    key: Sequence[Path | None],
    given: Mapping[str, str],
    replicas: Mapping[str, int],
    leave_out: Container[str] = (),
) -> dict[str, Any]:
    """Stages an archive; from then on ``finish`` puts it in the place of what is there.

    given: its settings.
    replicas: Deployments that stop for it, and how many pods they have then.

    Raises:
        UserError: it cannot be done; all is as it was then.
    """
    where = hand.release
    there = {
        part.name: part for part in hand.parts
        if not where.mounts[part.name].read_only and part.name not in leave_out
    }  # fmt: skip
    with archive.reading(file, *key) as reader:
        others = [name for name in reader.about["parts"] if name not in there]
        names = staging.stage(
            reader, [*there.values()], hand.server, lambda server: move(hand, server),
            Progress(file.stat().st_size), others,
        )  # fmt: skip
    try:
        secrets = {name: given[name] for name in release.SECRETS if given.get(name)}
        text = (f"import pathlib; p = pathlib.Path({STAGED + '/.env'!r})\n"
                "print(p.read_text() if p.exists() else '')")  # fmt: skip
        secrets.update({
            name: value for name, value in settings.parse_env(hand.python(text)).items()
            if name == "SECRET_KEY" and value
        })  # fmt: skip
        said = {
            "archive": file.name,
            "parts": names,
            "secrets": secrets,
            "replicas": replicas,
        }
        # What is staged must outlive a loss of power, if what it replaces is to go.
        hand.python("import os; os.sync()")
        # From here on it is finished, not given up.
        release.write_note(where, release.RESTORE, said)
    except BaseException:
        for part in there.values():
            commands.output(part.command("discard"))
        raise
    for name in others:
        if name not in leave_out:
            say(LEFT.get(name, f"{name}: the release has no place for it, so it is not restored"))
    return said


def restore(
    where: release.Release,
    file: Path,
    key: Sequence[Path | None],
    force: bool = False,
    to: Path = backup.FOLDER,
) -> None:
    """
    force: replaces what there is, after a backup of it into the folder ``to``.
    to: where a copy goes of one that the chart has made, too.

    Raises:
        UserError: it cannot be done; what was there is still there.
    """
    half = release.note(where, release.RESTORE)
    with release.hand(where) as hand:
        if not file.exists() and file.name == str(file):
            file = helm_backup.fetch(hand, file.name, to)
        if half:
            say(f"the restore of {half['archive']} was half done; going on with it")
            finish(hand, half)
        if not half or half["archive"] != file.name:
            about, text = staging.first_look(file, key)
            given = settings.parse_env(text)
            refuse(hand, about, given)
            if worth_saving(hand, force):
                up.step("Backup of what there is")
                # Of the images too, where the backup's take their place.
                datasets = "datasets" in about["parts"] and not where.mounts["datasets"].read_only
                wanted = backup.Wanted(to, datasets, lock=archive.Lock(key[0]))
                say(f"{helm_backup.make(hand, wanted)}")
            up.step("Restore")
            finish(hand, put(hand, file, key, given, replicas(where)))
    if where.env.get("STORAGE_TYPE") == "s3":
        say(S3_MEDIA)
    up.step("Setup")
    release.setup_again(where)


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    parser = argparse.ArgumentParser(prog="helm_restore.py")
    add_options(parser)
    helm_backup.add_release(parser)
    options = parser.parse_args(words)
    with up.alone(helm_backup.LOCK):
        restore(
            helm_backup.found(options), options.file, (options.passphrase_file, options.identity),
            options.force, options.to,
        )  # fmt: skip
    say(f"\nrestored from {options.file.name}")
    return 0


if __name__ == "__main__":
    run_main(main)
