"""Backups and what comes back of them: made while it runs, put back where nothing was."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from conftest import ROOT
from installation import Installation, installation
from team import MAKE_TOKEN, SECOND, Team, Work

pytestmark = pytest.mark.docker

STATE = "/data/models/state.json"


def script(place: Installation, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """backup.py or restore.py, as make runs it."""
    return subprocess.run(
        [sys.executable, f"scripts/{words[0]}.py", *words[1:]], cwd=ROOT, text=True,
        env={**place.environment, **settings}, capture_output=True, timeout=600,
    )  # fmt: skip


def done(place: Installation, *words: str, **settings: str) -> str:
    result = script(place, *words, **settings)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def inside(place: Installation, service: str, code: str) -> str:
    container: Any = docker.from_env().containers.get(place.containers()[service])
    status, output = container.exec_run(["python3", "-c", code])
    assert status == 0, output.decode()
    return str(output.decode())


def team(place: Installation, token: str = "") -> Team:
    return Team(f"http://127.0.0.1:{place.ports[0]}", token or place.token)


@dataclass(frozen=True)
class Held:
    """All that a team would miss."""

    work: Work
    state: str
    models: dict[str, bytes]
    projects: dict[str, bytes]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".before-restore" not in path.parts
    }


def held(place: Installation, upload: str) -> Held:
    return Held(
        team(place).work(upload),
        inside(place, "backend", f"print(open('{STATE}').read())"),
        files_of(place.folder / "models"),
        files_of(place.folder / "projects"),
    )


@contextlib.contextmanager
def bare(**settings: str) -> Iterator[Installation]:
    """A machine that has the images, and no .env, no volumes, no models, no projects."""
    with installation(**settings) as place:
        for name in ("models", "projects"):
            shutil.rmtree(place.folder / name)
        yield place


@dataclass
class Saved:
    """An installation in which people have worked, and a backup of it."""

    place: Installation
    upload: str
    second: str
    project: int
    file: Path
    took: dict[str, float]
    """Seconds that a backup and a restore take here: those that are killed are killed by these."""

    @classmethod
    def of(cls, place: Installation, folder: Path, upload: str, second: str, project: int) -> Saved:
        began = time.monotonic()
        output = done(place, "backup", "--to", str(folder))
        assert "not encrypted" in output and "DATASETS=1" in output
        (file,) = folder.iterdir()
        took = {"backup": time.monotonic() - began}
        return cls(place, upload, second, project, file, took)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    with installation() as place:
        code, output = place.up()
        assert code == 0, output
        picture = (place.folder / "datasets" / "demo" / "bus.jpg").read_bytes()
        project, upload = team(place).begin(picture)
        inside(place, "backend", f"open('{STATE}', 'w').write('what a model.py keeps')")
        second = inside(place, "label-studio", MAKE_TOKEN).split()[-1]
        assert team(place).log_in() == SECOND["email"]
        code, output = place.up("setup")  # the upload is predicted too
        assert code == 0, output
        yield Saved.of(place, tmp_path_factory.mktemp("sqlite"), upload, second, project)


@pytest.fixture(scope="module")
def postgres(sqlite: Saved, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """The same in PostgreSQL, as one moves there."""
    with bare(POSTGRES="1") as place:
        done(place, "restore", str(sqlite.file))
        folder = tmp_path_factory.mktemp("postgres")
        yield Saved.of(place, folder, sqlite.upload, sqlite.second, sqlite.project)


@pytest.fixture(params=["sqlite", "postgres"])
def saved(request: pytest.FixtureRequest) -> Saved:
    found: Saved = request.getfixturevalue(request.param)
    return found


def test_a_backup_is_whole_and_for_its_owner_alone(saved: Saved) -> None:
    assert saved.file.stat().st_mode & 0o777 == 0o600
    output = done(saved.place, "backup", "verify", str(saved.file))
    assert f"{saved.file.name}: whole" in output
    assert "1.23.2" in output
    if saved.place.environment.get("POSTGRES"):
        assert re.search(r"PostgreSQL: \d{2,} tables", output)
    else:
        assert "SQLite: 1 projects, 6 tasks, 1 annotations, 6 predictions" in output


def test_exports_of_engines_are_not_in_it_since_they_are_made_again(sqlite: Saved) -> None:
    there = inside(sqlite.place, "backend", "import os; print(os.listdir('/data/models'))")
    assert "openvino" in there
    with tarfile.open(sqlite.file) as tar:
        names = tar.getnames()
    assert "backend/models/state.json" in names and "settings/.env" in names
    assert not any("openvino" in name for name in names)


def test_it_comes_back_on_a_machine_that_never_saw_it(saved: Saved) -> None:
    before = held(saved.place, saved.upload)
    assert (len(before.work.tasks), len(before.work.predictions), len(before.work.users)) == (
        6,
        6,
        2,
    )
    with bare() as other:
        output = done(other, "restore", str(saved.file))
        assert f"restored from {saved.file.name}" in output
        assert held(other, saved.upload) == before
        assert team(other, saved.second).fetch("/api/current-user/whoami")
        assert team(other).log_in() == SECOND["email"]


def test_sqlite_becomes_postgresql_and_takes_new_work(sqlite: Saved, postgres: Saved) -> None:
    assert held(postgres.place, postgres.upload) == held(sqlite.place, sqlite.upload)
    assert team(postgres.place).log_in() == SECOND["email"]
    # Numbers go on after the last: nothing is written over.
    made = team(postgres.place).post("/api/projects/", json={"title": "made since"})
    assert made["id"] == postgres.project + 1
    requests.delete(
        f"http://127.0.0.1:{postgres.place.ports[0]}/api/projects/{made['id']}/", timeout=30,
        headers={"Authorization": f"Token {postgres.place.token}"},
    ).raise_for_status()  # fmt: skip
    code, output = postgres.place.up("setup")
    assert code == 0, output
    assert held(postgres.place, postgres.upload) == held(sqlite.place, sqlite.upload)


def test_postgresql_does_not_become_sqlite_and_nothing_is_touched(postgres: Saved) -> None:
    with bare(POSTGRES="0") as other:
        refused = script(other, "restore", str(postgres.file))
        assert refused.returncode == 1
        assert "Restore it with POSTGRES=1" in refused.stderr
        assert not (other.folder / ".env").exists()


def test_what_is_there_is_replaced_only_by_force_and_after_a_backup_of_it(sqlite: Saved) -> None:
    place = sqlite.place
    before = held(place, sqlite.upload)
    refused = script(place, "restore", str(sqlite.file))
    assert refused.returncode == 1
    assert "there is an installation already" in refused.stderr and "FORCE=1" in refused.stderr
    team(place).post("/api/projects/", json={"title": "made since"})
    began = time.monotonic()
    output = done(place, "restore", "--force", str(sqlite.file))
    sqlite.took["restore"] = time.monotonic() - began
    (kept,) = re.findall(r"(\S+\.tar\.gz)\n", output.partition("== Restore")[0])
    try:
        assert held(place, sqlite.upload) == before
        assert "whole" in done(place, "backup", "verify", kept)
    finally:
        Path(kept).unlink()


def test_a_backup_that_is_cut_off_changes_nothing(sqlite: Saved, tmp_path: Path) -> None:
    cut = tmp_path / sqlite.file.name
    cut.write_bytes(sqlite.file.read_bytes()[: sqlite.file.stat().st_size // 2])
    before, containers = held(sqlite.place, sqlite.upload), sqlite.place.containers()
    for words in (("backup", "verify", str(cut)), ("restore", "--force", str(cut))):
        refused = script(sqlite.place, *words)
        assert refused.returncode == 1
        assert "cut off" in refused.stderr, refused.stdout + refused.stderr
    assert sqlite.place.containers() == containers
    assert held(sqlite.place, sqlite.upload) == before
    forget_backups_of(sqlite.place)


@pytest.mark.parametrize("point", [0.15, 0.5, 0.85])
def test_a_backup_that_is_killed_leaves_no_half_one(
    sqlite: Saved, tmp_path: Path, point: float
) -> None:
    words = ("backup", "--to", str(tmp_path))
    killed(sqlite.place, words, point * sqlite.took["backup"])
    done(sqlite.place, *words)
    assert not list(tmp_path.glob(".*"))
    for path in tmp_path.iterdir():
        assert "whole" in done(sqlite.place, "backup", "verify", str(path))


@pytest.mark.parametrize(("which", "point"), [("sqlite", 0.75), ("postgres", 0.6)])
def test_a_restore_that_is_killed_loses_nothing_and_ends_well_when_run_again(
    request: pytest.FixtureRequest, sqlite: Saved, which: str, point: float
) -> None:
    saved: Saved = request.getfixturevalue(which)
    before = held(saved.place, saved.upload)
    words = ("restore", "--force", str(saved.file))
    killed(saved.place, words, point * sqlite.took["restore"])
    done(saved.place, *words)
    assert held(saved.place, saved.upload) == before
    forget_backups_of(saved.place)


def killed(place: Installation, words: Sequence[str], after: float) -> None:
    """Runs a script and kills it with all that it has started, after so many seconds."""
    process = subprocess.Popen(
        [sys.executable, f"scripts/{words[0]}.py", *words[1:]], cwd=ROOT, env=place.environment,
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def forget_backups_of(place: Installation) -> None:
    for left in (ROOT / "backups").glob(f"*{place.name}-*"):
        left.unlink()


@pytest.mark.parametrize("kind", ["gpg", "age"])
def test_an_encrypted_one_is_read_with_its_key_alone(
    sqlite: Saved, tmp_path: Path, kind: str
) -> None:
    assert shutil.which(kind), f"{kind} is missing; make test-integration installs it"
    place = sqlite.place
    if kind == "gpg":
        secret, wrong = tmp_path / "secret", tmp_path / "wrong"
        secret.write_text("correct horse\n")
        wrong.write_text("incorrect horse\n")
        lock = key = ("--passphrase-file", str(secret))
        others = ("--passphrase-file", str(wrong))
    else:
        for name in ("key", "wrong"):
            subprocess.run(["age-keygen", "-o", tmp_path / name], check=True, capture_output=True)
        (recipient,) = re.findall(r"age1\w+", (tmp_path / "key").read_text())
        lock, key = ("--recipient", recipient), ("--identity", str(tmp_path / "key"))
        others = ("--identity", str(tmp_path / "wrong"))
    folder = tmp_path / "backups"
    output = done(place, "backup", "--to", str(folder), "--keep", "1", *lock)
    assert "not encrypted" not in output
    (made,) = folder.iterdir()
    assert made.suffix == f".{kind}"
    assert place.token.encode() not in made.read_bytes()
    assert "whole" in done(place, "backup", "verify", str(made), *key)
    refused = script(place, "backup", "verify", str(made), *others)
    assert refused.returncode == 1 and f"error: {kind}:" in refused.stderr
