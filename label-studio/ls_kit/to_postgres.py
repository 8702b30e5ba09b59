"""Copies Label Studio's SQLite database into an empty PostgreSQL database, row by row as it is.

    python -m ls_kit.to_postgres FILE.sqlite3

The database that DJANGO_DB and POSTGRE_* name gets its tables by Label Studio's own migrations.
The file is brought to the same migrations first, where it is older; else it stays as it is. All
rows, or none: it is one transaction.
"""

# Django and Label Studio are there in the image, not where this is checked.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ls_kit.entrypoint import (
    EX_CONFIG,
    StartError,
    migrate,
    say,
    set_up_django,
    wait_for_database,
)

MIGRATE = "from ls_kit import entrypoint; entrypoint.set_up_django(); entrypoint.migrate()"
ROWS = 1000
"""How many are read from the file at a time."""


def bring_up_to_date(file: Path) -> None:
    """Label Studio's migrations on the file, in a process of their own: one has one database.

    Raises:
        StartError: they failed.
    """
    environ = {**os.environ, "DJANGO_DB": "sqlite", "DATABASE_NAME": str(file)}
    if subprocess.run([sys.executable, "-c", MIGRATE], env=environ, check=False).returncode:
        raise StartError(f"{file}: could not be brought up to date; the lines above say why")


def same_migrations(source: sqlite3.Connection, cursor: Any) -> None:
    """
    Raises:
        StartError: a side has one that the other lacks.
    """
    wanted = "SELECT app, name FROM django_migrations"
    cursor.execute(wanted)
    if differ := sorted(set(source.execute(wanted)) ^ set(cursor.fetchall())):
        names = ", ".join(".".join(one) for one in differ[:3])
        raise StartError(f"the databases are not of one version of Label Studio: {names}")


def columns(cursor: Any) -> dict[str, list[str]]:
    """Columns of each table of PostgreSQL, without those that it makes itself."""
    cursor.execute(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c "
        "JOIN information_schema.tables t USING (table_schema, table_name) "
        "WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE' "
        "AND c.is_generated = 'NEVER' ORDER BY c.table_name, c.ordinal_position"
    )
    found: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        found.setdefault(table, []).append(column)
    return found


def shared(source: sqlite3.Connection, target: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """What is copied: the columns that both sides have, of each table that both have.

    Raises:
        StartError: the file has rows in a table, or columns, that PostgreSQL lacks.
    """
    names = [
        name
        for (name,) in source.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
    ]
    found = {}
    for table in names:
        there = [row[1] for row in source.execute(f'PRAGMA table_info("{table}")')]
        wanted = target.get(table)
        if wanted is None:
            if source.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone():
                raise StartError(f"table {table} has rows, and PostgreSQL has no such table")
            continue
        # Generated on one side, and so made anew on the other.
        found[table] = [column for column in there if column in wanted]
        if missing := set(wanted) - set(there):
            raise StartError(f"table {table}: the file has no column {', '.join(sorted(missing))}")
    return found


def quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def copy(source: sqlite3.Connection, cursor: Any) -> int:
    """Copies all rows in the transaction that is open.

    Returns:
        How many.

    Raises:
        StartError: PostgreSQL takes one not, or has another number of them afterwards.
    """
    from django.db import DatabaseError

    tables = shared(source, columns(cursor))
    # Whose row comes first is nobody's business here; needs a superuser.
    cursor.execute("SET LOCAL session_replication_role = replica")
    cursor.execute("SET LOCAL timezone = 'UTC'")  # Django keeps times so in SQLite, without saying
    cursor.execute(f"TRUNCATE {quoted(list(tables))} CASCADE")
    total = 0
    for table, names in tables.items():
        rows = source.execute(f'SELECT {quoted(names)} FROM "{table}"')
        try:
            with cursor.copy(f'COPY "{table}" ({quoted(names)}) FROM STDIN') as target:
                while some := rows.fetchmany(ROWS):
                    for row in some:
                        target.write_row(row)
        except (DatabaseError, ValueError) as error:
            said = " ".join(str(error).split())
            raise StartError(f"table {table}: PostgreSQL does not take it: {said}") from None
        (expected,) = source.execute(f'SELECT count(*) FROM "{table}"').fetchone()
        cursor.execute(f'SELECT count(*) FROM "{table}"')
        (stored,) = cursor.fetchone()
        if stored != expected:
            raise StartError(f"table {table}: {stored} rows arrived, expected {expected}")
        total += stored
    advance_sequences(cursor)
    return total


def advance_sequences(cursor: Any) -> None:
    """The next row gets a number of its own."""
    cursor.execute(
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() "
        "AND (is_identity = 'YES' OR column_default LIKE 'nextval(%')"
    )
    for table, column in cursor.fetchall():
        cursor.execute(
            f'SELECT setval(pg_get_serial_sequence(%s, %s), coalesce(max("{column}"), 1), '
            f'max("{column}") IS NOT NULL) FROM "{table}"',
            [f'"{table}"', column],
        )


def main(words: list[str] | None = None) -> int:
    (name,) = sys.argv[1:] if words is None else words
    file = Path(name)
    set_up_django()
    from django.db import connection, transaction

    try:
        if connection.vendor != "postgresql":
            raise StartError("DJANGO_DB: found sqlite, expected postgresql")
        wait_for_database()
        migrate()
        bring_up_to_date(file)
        with (
            closing(sqlite3.connect(file)) as source,
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            same_migrations(source, cursor)
            total = copy(source, cursor)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
        say(f"{total} rows copied into PostgreSQL")
    except StartError as error:
        print(f"label-studio: error: {error}", file=sys.stderr, flush=True)
        return EX_CONFIG
    finally:
        connection.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
