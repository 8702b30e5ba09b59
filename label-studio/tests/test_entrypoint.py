"""The start's checks and the placing of the database; Label Studio itself is not needed."""

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ls_kit import entrypoint
from ls_kit.entrypoint import StartError

FOLDER = Path(entrypoint.__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LABEL_STUDIO_THREADS", "1"),
        ("LABEL_STUDIO_THREADS", "many"),
        ("LABEL_STUDIO_THREADS", "65"),
        ("LABEL_STUDIO_HOST", "labels.example.com"),
        ("CSRF_TRUSTED_ORIGINS", "https://a.example, b.example"),
        ("SSRF_ALLOWED_HOSTS", "http://backend:9090"),
        ("USER_ADDITIONAL_BANNED_SUBNETS", "10.0.0.1/8"),
        ("LABEL_STUDIO_USERNAME", "bob"),
        ("LABEL_STUDIO_API_KEY", "short"),
        ("DJANGO_DB", "mysql"),
    ],
)
def test_a_bad_variable_is_named_with_what_was_expected(name, value):
    with pytest.raises(StartError, match=rf"^{name}: found .*expected"):
        entrypoint.check_environment({name: value})


def test_empty_variables_are_as_good_as_none():
    names = ("LABEL_STUDIO_USERNAME", "LABEL_STUDIO_API_KEY", "LABEL_STUDIO_HOST",
             "CSRF_TRUSTED_ORIGINS", "LABEL_STUDIO_THREADS", "SSRF_ALLOWED_HOSTS")  # fmt: skip
    found = entrypoint.check_environment(dict.fromkeys(names, ""))
    assert found.email == "admin@example.com"


def test_variables_are_looked_up_as_upstream_does():
    environ = {"X": "3", "HEARTEX_X": "2", "LABEL_STUDIO_X": "1"}
    assert entrypoint.variable(environ, "X") == "1"
    del environ["LABEL_STUDIO_X"]
    assert entrypoint.variable(environ, "X") == "2"
    assert entrypoint.variable({}, "X", "d") == "d"


def test_a_folder_that_can_be_written(tmp_path):
    entrypoint.check_folder(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (PermissionError(13, "Permission denied"), "chown -R"),
        (OSError(30, "Read-only file system"), "Mount a volume"),
        (OSError(28, "No space left on device"), "Free some space"),
        (OSError(5, "Input/output error"), "Input/output error"),
    ],
)
def test_a_folder_that_cannot_be_written_says_why_and_what_to_do(tmp_path, monkeypatch, error, fix):
    def fail(**kwargs):
        raise error

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    with pytest.raises(StartError, match=fix) as found:
        entrypoint.check_folder(tmp_path)
    assert str(tmp_path) in str(found.value)


def test_a_file_of_another_owner(tmp_path, monkeypatch):
    database = tmp_path / "label_studio.sqlite3"
    entrypoint.check_files(database)
    database.write_bytes(b"x")
    monkeypatch.setattr("os.access", lambda *args: False)
    with pytest.raises(StartError, match="chown -R"):
        entrypoint.check_files(database)


def make_template(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    path.chmod(0o444)
    return path


def test_the_template_is_placed_once(tmp_path):
    template = make_template(tmp_path / "template.sqlite3")
    database = tmp_path / "label_studio.sqlite3"
    stale = database.with_name(database.name + "-wal")
    stale.write_bytes(b"of a database that is gone")
    assert entrypoint.place_template(database, template)
    assert database.read_bytes() == template.read_bytes()
    assert database.stat().st_mode & 0o777 == 0o600
    assert not stale.exists()

    with sqlite3.connect(database) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    connection.close()
    assert not entrypoint.place_template(database, template)
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(1,)]
    connection.close()


def test_what_a_cut_off_start_left_is_replaced(tmp_path):
    template = make_template(tmp_path / "template.sqlite3")
    database = tmp_path / "label_studio.sqlite3"
    database.touch()  # SQLite makes an empty file when it connects
    (tmp_path / ".label_studio.sqlite3.new").write_bytes(b"half")
    assert entrypoint.place_template(database, template)
    assert database.read_bytes() == template.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "label_studio.sqlite3", "template.sqlite3",
    ]  # fmt: skip


def test_without_a_template_nothing_is_placed(tmp_path):
    database = tmp_path / "label_studio.sqlite3"
    assert not entrypoint.place_template(database, tmp_path / "none")
    assert not database.exists()


def test_two_starts_wait_for_each_other(tmp_path, capsys):
    path = tmp_path / ".start.lock"
    order = []
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def second():
            with entrypoint.file_lock(path):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert "waiting" in capsys.readouterr().out


def start(tmp_path, **environ):
    return subprocess.run(
        [sys.executable, "-m", "ls_kit.entrypoint"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(FOLDER),
            "BASE_DATA_DIR": str(tmp_path),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_first_start_without_password_is_one_line_and_78(tmp_path):
    ended = start(tmp_path)
    assert ended.returncode == 78
    assert ended.stderr.startswith("label-studio: error: LABEL_STUDIO_PASSWORD: found none")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "label_studio.sqlite3").exists()


def test_no_secret_is_repeated(tmp_path):
    ended = start(
        tmp_path, LABEL_STUDIO_PASSWORD="hunter2hunter2", LABEL_STUDIO_API_KEY="not/a/token"
    )
    assert ended.returncode == 78
    assert "not/a/token" not in ended.stderr + ended.stdout
    assert "hunter2" not in ended.stderr + ended.stdout
