"""What Label Studio's migrations leave to be done: see where a database stands, and clear away what
a start that was cut off has left. Call these with the database's lock held.
"""

# Django and Label Studio are there in the image, not where this is checked.
# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

Migration = tuple[str, str]
"""App and name. Names begin with a number of four digits, which tells their order."""


def newer(
    applied: Iterable[Migration], ours: Iterable[Migration], replaced: Container[Migration] = ()
) -> list[str]:
    """Those of ``applied`` that come after all of ``ours`` in their app.

    replaced: those that one of ours stands for. Their numbers are of another count.
    """
    last: dict[str, str] = {}
    for app, name in ours:
        last[app] = max(last.get(app, ""), name[:4])
    return sorted(
        f"{app}.{name}"
        for app, name in applied
        if app in last and name[:4] > last[app] and (app, name) not in replaced
    )


def drop_half_made_indexes() -> list[str]:
    """Drops what a cut-off CREATE INDEX CONCURRENTLY left in PostgreSQL: nothing uses such an
    index, and over its name the same step would fail for ever.

    Returns:
        Their names.
    """
    from django.db import connection

    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE NOT i.indisvalid AND n.nspname = current_schema()"
        )
        names = [name for (name,) in cursor.fetchall()]
        for name in names:
            cursor.execute(f"DROP INDEX {name}")
    return names


def empty_if_unused(migrations: Sequence[Any]) -> bool:
    """Drops all tables of a PostgreSQL database in which nobody has worked yet.

    Args:
        migrations: Django's, all that this version has; they name every table that was ever made.

    Returns:
        Whether it did. It does not where there is a user, or a table that no migration makes.
    """
    from django.contrib.auth import get_user_model
    from django.contrib.contenttypes.models import ContentType
    from django.db import connection

    if connection.vendor != "postgresql":
        return False
    users = get_user_model()._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        there = {name for (name,) in cursor.fetchall()}
        if not there <= _tables(migrations):
            return False
        if users in there:
            cursor.execute(f"SELECT EXISTS (SELECT FROM {connection.ops.quote_name(users)})")
            if cursor.fetchone()[0]:
                return False
        # At once or not at all; CASCADE, since they refer to each other.
        cursor.execute(f"DROP TABLE {', '.join(map(connection.ops.quote_name, there))} CASCADE")
    ContentType.objects.clear_cache()
    return True


def _tables(migrations: Sequence[Any]) -> set[str]:
    from django.db import connection
    from django.db.migrations.operations import CreateModel
    from django.db.migrations.recorder import MigrationRecorder

    names = {
        *connection.introspection.django_table_names(),
        MigrationRecorder.Migration._meta.db_table,
    }
    for migration in migrations:
        for one in migration.operations:
            if isinstance(one, CreateModel):
                made = one.options.get("db_table") or f"{migration.app_label}_{one.name_lower}"
                names.add(made)
                names |= {f"{made}_{name}" for name, field in one.fields if field.many_to_many}
    return names
