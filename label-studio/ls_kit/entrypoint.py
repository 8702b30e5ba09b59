"""Starts Label Studio: checks, database, first user, then gunicorn in this process.

    python -m ls_kit.entrypoint [serve|prepare]

``prepare`` ends after the database and the user are ready. Whatever a person must put right ends
the start with one message and exit status 78 (sysexits' EX_CONFIG); a start that was cut off at any
point is safe to repeat, and two at once wait for each other.
"""

# Django and Label Studio are there in the image, not where this is checked.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

from ls_kit import account, migrations, ssrf

TEMPLATE = Path("/opt/ls-kit/template.sqlite3")
DATABASE_WAIT = 60.0  # seconds
THREADS = (2, 64)
EX_CONFIG = 78
# Any number that nobody else takes for a lock in the same PostgreSQL database.
MIGRATION_LOCK = 0x6C735F6B6974


class StartError(Exception):
    """Something that a person must put right; the text says what was found and the fix."""


def say(text: str) -> None:
    print(f"label-studio: {text}", flush=True)


def variable(environ: Mapping[str, str], name: str, default: str = "") -> str:
    """A variable as Label Studio looks it up."""
    for prefix in ("LABEL_STUDIO_", "HEARTEX_", ""):
        if prefix + name in environ:
            return environ[prefix + name]
    return default


def check_environment(environ: Mapping[str, str]) -> account.Account:
    """Everything that can be said about the variables without looking further.

    Raises:
        StartError: one cannot be used.
    """
    try:
        ssrf.parse_hosts(variable(environ, "SSRF_ALLOWED_HOSTS", "backend"))
        ssrf.parse_networks(variable(environ, "USER_ADDITIONAL_BANNED_SUBNETS").split(","))
        person = account.read(
            environ.get("LABEL_STUDIO_USERNAME", ""),
            environ.get("LABEL_STUDIO_PASSWORD", ""),
            environ.get("LABEL_STUDIO_API_KEY", ""),
        )
    except ValueError as error:
        raise StartError(str(error)) from None

    low, high = THREADS
    text = environ.get("LABEL_STUDIO_THREADS", "").strip() or "8"
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise StartError(
            f"LABEL_STUDIO_THREADS: found {text!r}, expected a number from {low} to {high}"
        )
    # Upstream takes no notice of an address without a scheme, and links go to the wrong place.
    host = variable(environ, "HOST")
    if host and not host.startswith(("http://", "https://")):
        raise StartError(
            f"LABEL_STUDIO_HOST: found {host!r}, expected the full address that people open, "
            "such as https://labels.example.com"
        )
    for origin in variable(environ, "CSRF_TRUSTED_ORIGINS").split(","):
        if origin.strip() and "://" not in origin:
            raise StartError(
                f"CSRF_TRUSTED_ORIGINS: found {origin.strip()!r}, expected origins with their "
                "scheme, such as https://labels.example.com"
            )
    kind = variable(environ, "DJANGO_DB", "sqlite")
    if kind not in ("sqlite", "default", "postgresql"):
        raise StartError(f"DJANGO_DB: found {kind!r}, expected sqlite or postgresql")
    return person


def check_folder(folder: Path) -> None:
    """Raises StartError unless files can be made in ``folder``."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        state = ""
        with contextlib.suppress(OSError):
            status = folder.stat()
            state = f", owner {status.st_uid}:{status.st_gid}, mode {status.st_mode & 0o7777:o}"
        user = f"{os.getuid()}:{os.getgid()}"
        fixes = {
            errno.EACCES: f"`chown -R {user}` on the folder or volume that is mounted there; in "
            f"Kubernetes, fsGroup: {os.getgid()}",
            errno.EROFS: "Mount a volume there that can be written",
            errno.ENOSPC: "Free some space on the disk that it lies on",
        }
        fixes[errno.EPERM] = fixes[errno.EACCES]
        fix = fixes.get(error.errno or 0, "")
        raise StartError(
            f"{folder} cannot be written: {error.strerror} (user {user}{state}). {fix}".rstrip()
        ) from None


def check_files(*files: Path) -> None:
    """Raises StartError if one of ``files`` is there and cannot be opened for writing."""
    for file in files:
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            status = file.stat()
            user = f"{os.getuid()}:{os.getgid()}"
            raise StartError(
                f"{file} cannot be written by user {user} (owner {status.st_uid}:{status.st_gid}). "
                f"`chown -R {user}` on the folder or volume that is mounted at {file.parent}"
            )


def place_template(database: Path, template: Path = TEMPLATE) -> bool:
    """Puts the empty, migrated database where there is none yet; whole or not at all."""
    if not template.exists() or (database.exists() and database.stat().st_size > 0):
        return False
    # A log of a database that is gone must not be played into the new one.
    for suffix in ("-wal", "-shm", "-journal"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    copy = database.with_name(f".{database.name}.new")
    with template.open("rb") as source, copy.open("wb") as target:
        copy.chmod(0o600)
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    copy.replace(database)
    folder = os.open(database.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Holds ``path`` for one start at a time, until that process ends, however it ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another start is at work on the same data; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def database_lock() -> Iterator[None]:
    """Holds PostgreSQL's own lock, so that replicas prepare one after the other."""
    from django.db import connection

    if connection.vendor != "postgresql":
        yield
        return
    # Asked for again and again, not waited for: a waiting statement is an open transaction, and the
    # other's CREATE INDEX CONCURRENTLY would wait for that one in turn.
    told = False
    while True:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATION_LOCK])
            if cursor.fetchone()[0]:
                break
        if not told:
            say("another start is at work on the same database; waiting for it")
            told = True
        time.sleep(1)
    try:
        yield
    finally:
        connection.close()  # which lets the lock go


def set_up_django() -> None:
    """Label Studio's models, with the database that the environment names."""
    # Upstream's modules are imported from inside its package.
    spec = importlib.util.find_spec("label_studio")
    assert spec is not None and spec.origin is not None
    sys.path.insert(0, str(Path(spec.origin).parent))
    import django

    django.setup()


def wait_for_database(seconds: float = DATABASE_WAIT) -> None:
    """Returns when the database answers.

    Raises:
        StartError: it did not in time.
    """
    from django.db import DatabaseError, connection

    end = time.monotonic() + seconds
    told = False
    while True:
        try:
            connection.ensure_connection()
            return
        except DatabaseError as error:
            reason = " ".join(str(error).split())
        where = "{HOST}:{PORT}/{NAME}".format(**connection.settings_dict)
        if connection.vendor == "sqlite":
            where = str(connection.settings_dict["NAME"])
        if time.monotonic() > end:
            raise StartError(f"the database {where} cannot be used: {reason}") from None
        if not told:
            say(f"waiting for the database {where}: {reason}")
            told = True
        time.sleep(1)


def migrate() -> None:
    """Brings the tables to this version; does nothing where they are.

    Raises:
        StartError: it failed, or the database is of a newer version.
    """
    from django.core.management import call_command
    from django.db import Error, connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    loader = executor.loader
    ours = loader.disk_migrations
    replaced = {name for migration in ours.values() for name in migration.replaces}
    if found := migrations.newer(loader.applied_migrations, ours, replaced):
        raise StartError(
            f"the database is of a newer Label Studio: it has {found[-1]}, which this version "
            "lacks. Start the newer version again, or restore the backup that was made before it "
            "came (docs/backup.md)"
        )
    plan = executor.migration_plan(loader.graph.leaf_nodes())
    if not plan:
        return
    say(f"bringing the database up to date, {len(plan)} steps")
    for name in migrations.drop_half_made_indexes():
        say(f"dropped the half-made index {name}")
    started = time.monotonic()
    call = partial(call_command, "migrate", interactive=False, no_color=True, verbosity=0)
    try:
        try:
            call()
        except Exception as error:
            # Label Studio's first migrations cannot go on where they were cut off: Django's record
            # of the models lacks some (KeyError, ValueError). What the database itself refuses
            # would be refused again.
            if isinstance(error, Error) or not migrations.empty_if_unused([*ours.values()]):
                raise
            say("an earlier start was cut off, and nobody has worked here yet: beginning anew")
            call()
    except Exception as error:
        traceback.print_exc()
        raise StartError(
            f"the database could not be brought up to date: {type(error).__name__}: {error}. "
            "If an earlier start was cut off at this: an empty database starts over, one with "
            "work in it goes back to its backup"
        ) from None
    say(f"the database is up to date ({time.monotonic() - started:.0f} s)")


def prepare(environ: Mapping[str, str]) -> None:
    """Makes the database and the first user ready.

    Raises:
        StartError: something must be put right first.
    """
    person = check_environment(environ)
    data = Path(variable(environ, "BASE_DATA_DIR", "/data"))
    check_folder(data)
    sqlite = variable(environ, "DJANGO_DB", "sqlite") == "sqlite"
    database = Path(variable(environ, "DATABASE_NAME") or data / "label_studio.sqlite3")
    lock = data / ".start.lock"
    check_files(lock, data / ".env")
    with file_lock(lock):
        if sqlite:
            check_folder(database.parent)
            check_files(database, database.with_name(database.name + "-wal"))
            if not database.exists() and not person.password:
                raise StartError(account.no_password(person.email))
            if place_template(database):
                say(f"made the database {database}")
        set_up_django()
        wait_for_database()
        with database_lock():
            migrate()
            try:
                account.ensure(person)
            except account.AccountError as error:
                raise StartError(str(error)) from None
        from django.db import connections

        connections.close_all()


def serve() -> NoReturn:
    """Gunicorn, in this process: its worker is forked with Label Studio's modules loaded."""
    from gunicorn.app.wsgiapp import run

    # Gunicorn reads its arguments from here.
    sys.argv = ["gunicorn", "--config", str(Path(__file__).with_name("gunicorn.conf.py"))]
    run()
    raise AssertionError("gunicorn ends with sys.exit")


def main(argv: list[str] | None = None) -> int:
    # As process 1 without an init, nothing would happen on SIGTERM before gunicorn takes over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="ls_kit.entrypoint")
    parser.add_argument("action", nargs="?", choices=("serve", "prepare"), default="serve")
    options = parser.parse_args(argv)
    try:
        prepare(os.environ)
    except StartError as error:
        print(f"label-studio: error: {error}", file=sys.stderr, flush=True)
        return EX_CONFIG
    if options.action == "serve":
        serve()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
