"""PostgreSQL, as its own programs reach it: a dump, and another database in the place of one."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lib import archive, commands
from lib.cli import UserError


@dataclass(frozen=True)
class Server:
    """A server with Label Studio's database.

    reach: the command line before one of PostgreSQL's programs.
    """

    reach: tuple[str, ...]
    database: str
    user: str

    @property
    def restored(self) -> str:
        """The database that is staged."""
        return f"{self.database}-restored"

    @property
    def replaced(self) -> str:
        """The one that gave way to it."""
        return f"{self.database}-replaced"

    def command(self, program: str, *words: str) -> list[str]:
        """The command line of one of PostgreSQL's programs."""
        return [*self.reach, program, "--username", self.user, *words]

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """What statements answer, without a transaction around them.

        Raises:
            UserError: one failed.
        """
        words = ["--dbname", database, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
                 "--set", "ON_ERROR_STOP=1"]  # fmt: skip
        for statement in statements:
            words += ["--command", statement]
        done = subprocess.run(
            self.command("psql", *words), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"PostgreSQL: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout.strip()

    def answers(self, *words: str) -> bool:
        """``words``: more options of ``pg_isready``."""
        return commands.output(self.command("pg_isready", "--quiet", *words)) is not None

    def need_rights(self) -> None:
        """
        Raises:
            UserError: the user may not put another database in the place of Label Studio's.
        """
        may = self.sql(
            "SELECT bool_and(r.rolsuper OR r.rolcreatedb AND pg_has_role(d.datdba, 'USAGE')) "
            "FROM pg_roles r, pg_database d "
            f"WHERE r.rolname = current_user AND d.datname = '{self.database}'"
        )
        if may != "t":
            raise UserError(
                f"PostgreSQL's user {self.user} may not make databases and rename "
                f"{self.database}, which a restore does. As its superuser: ALTER USER "
                f'"{self.user}" CREATEDB; ALTER DATABASE "{self.database}" OWNER TO "{self.user}"'
            )

    def databases(self) -> set[str]:
        return set(self.sql("SELECT datname FROM pg_database").split())

    def size(self) -> int:
        """Bytes of Label Studio's database."""
        return int(self.sql(f"SELECT pg_database_size('{self.database}')"))

    @contextlib.contextmanager
    def dump(self, folder: Path) -> Iterator[IO[bytes]]:
        """Label Studio's database at one moment, in a file of ``folder`` that goes again.

        Raises:
            UserError: it cannot be dumped: the server is newer than ``pg_dump``, for one.
        """
        words = ["--format", "custom", "--compress", "0", self.database]
        with tempfile.TemporaryFile(dir=folder) as file:
            commands.piped(self.command("pg_dump", *words), "database", stdout=file)
            file.seek(0)
            yield file

    def make_restored(self) -> None:
        """An empty one, beside Label Studio's."""
        self.sql(drop(self.restored), f'CREATE DATABASE "{self.restored}" TEMPLATE template0')

    def drop_restored(self) -> None:
        self.sql(drop(self.restored))

    def stage(self, dump: archive.Readable) -> None:
        """Puts a dump beside Label Studio's database.

        Raises:
            UserError: it cannot be read, or the user may not.
        """
        self.make_restored()
        words = ["--dbname", self.restored, "--no-owner", "--exit-on-error"]
        process = subprocess.Popen(
            self.command("pg_restore", *words), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        said = commands.Reader(process.stderr)
        assert process.stdin is not None
        try:
            while block := dump.read(1 << 20):
                process.stdin.write(block)
            process.stdin.close()
        except BrokenPipeError:
            pass  # what it has said tells why
        finally:
            code = process.wait()
        if code:
            raise UserError(f"database: {said.text() or f'exit code {code}'}")

    def exchange(self) -> None:
        """Puts the database that is staged in the place of Label Studio's; safe to run again."""
        there = self.databases()
        if self.restored in there:
            # Whoever is still connected would hold up the renaming.
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname IN ('{self.database}', '{self.restored}') "
                # Others are the server's own, which no user may end; they give way.
                "AND backend_type = 'client backend'",
            )
            forth = f'ALTER DATABASE "{self.restored}" RENAME TO "{self.database}"'
            if self.database in there:
                self.sql(drop(self.replaced))
                # Both or none.
                self.sql(
                    f'BEGIN; ALTER DATABASE "{self.database}" RENAME TO "{self.replaced}"; '
                    f"{forth}; COMMIT",
                )
            else:
                self.sql(forth)
        self.sql(drop(self.replaced))


def drop(database: str) -> str:
    """The statement that removes a database, whoever is connected to it."""
    return f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'
