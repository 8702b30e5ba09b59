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

pytestmark = pytest.mark.docker

STATE = "/data/models/state.json"
SECOND = {"email": "second@example.com", "password": "correct-horse-battery"}
MAKE_TOKEN = f"""
import importlib.util, pathlib, sys
sys.path.insert(0, str(pathlib.Path(importlib.util.find_spec("label_studio").origin).parent))
import django
django.setup()
from rest_framework.authtoken.models import Token
from users.models import User
user = User.objects.get(email="{SECOND["email"]}")
user.set_password("{SECOND["password"]}")
user.save()
print(Token.objects.get_or_create(user=user)[0])
"""


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


def post(place: Installation, path: str, **more: Any) -> Any:
    answer = requests.post(
        f"http://127.0.0.1:{place.ports[0]}{path}", timeout=60,
        headers={"Authorization": f"Token {place.token}"}, **more,
    )  # fmt: skip
    assert answer.ok, answer.text
    return answer.json()


def fetch(place: Installation, path: str, key: str = "") -> bytes:
    answer = requests.get(
        f"http://127.0.0.1:{place.ports[0]}{path}", timeout=60,
        headers={"Authorization": f"Token {key or place.token}"},
    )  # fmt: skip
    assert answer.ok, answer.text
    return answer.content


def without_times(value: Any) -> Any:
    """JSON without what says when it was asked for, sorted: PostgreSQL keeps no order of keys."""
    if isinstance(value, dict):
        skip = ("last_activity", "updated_at", "created_ago", "lead_time")
        return {k: without_times(v) for k, v in sorted(value.items()) if k not in skip}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Held:
    """All that a team would miss."""

    tasks: Any
    predictions: Any
    users: Any
    upload: bytes
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
    tasks = []
    for project in place.get("/api/projects/")["results"]:
        tasks += place.get(
            f"/api/projects/{project['id']}/export?exportType=JSON&download_all_tasks=true"
        )
    return Held(
        sorted(without_times(tasks), key=lambda task: task["id"]),
        sorted(without_times(place.get("/api/predictions/")), key=lambda one: one["id"]),
        sorted(without_times(place.get("/api/users/")), key=lambda user: user["id"]),
        fetch(place, upload),
        inside(place, "backend", f"print(open('{STATE}').read())"),
        files_of(place.folder / "models"),
        files_of(place.folder / "projects"),
    )  # fmt: skip


def log_in(place: Installation) -> str:
    """Who the second user is, by the password."""
    page, url = requests.Session(), f"http://127.0.0.1:{place.ports[0]}"
    page.get(f"{url}/user/login/", timeout=30)
    form = {**SECOND, "csrfmiddlewaretoken": page.cookies["csrftoken"]}
    page.post(f"{url}/user/login/", data=form, timeout=30)
    return str(page.get(f"{url}/api/current-user/whoami", timeout=30).json()["email"])


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
        (project,) = (p["id"] for p in place.get("/api/projects/")["results"])
        task = place.get(f"/api/tasks/?project={project}")["tasks"][0]["id"]
        value = {"x": 1.5, "y": 2, "width": 30, "height": 40, "rotation": 0}
        result = {
            "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": 810, "original_height": 1080,
            "value": {**value, "rectanglelabels": ["bus"]},
        }  # fmt: skip
        post(place, f"/api/tasks/{task}/annotations/", json={"result": [result]})
        picture = (place.folder / "datasets" / "demo" / "bus.jpg").read_bytes()
        answer = post(
            place, f"/api/projects/{project}/import?commit_to_project=true",
            files={"bus upload.jpg": ("bus upload.jpg", picture, "image/jpeg")},
        )  # fmt: skip
        assert answer["task_count"] == 1
        found = place.get(f"/api/tasks/?project={project}&page_size=100&fields=all")["tasks"]
        (upload,) = (t["data"]["image"] for t in found if "/upload/" in t["data"]["image"])
        post(place, "/api/users/", json={**SECOND, "username": "second"})
        inside(place, "backend", f"open('{STATE}', 'w').write('what a model.py keeps')")
        second = inside(place, "label-studio", MAKE_TOKEN).split()[-1]
        assert log_in(place) == SECOND["email"]
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
    assert (len(before.tasks), len(before.predictions), len(before.users)) == (6, 6, 2)
    with bare() as other:
        output = done(other, "restore", str(saved.file))
        assert f"restored from {saved.file.name}" in output
        assert held(other, saved.upload) == before
        assert fetch(other, "/api/current-user/whoami", saved.second)
        assert log_in(other) == SECOND["email"]


def test_sqlite_becomes_postgresql_and_takes_new_work(sqlite: Saved, postgres: Saved) -> None:
    assert held(postgres.place, postgres.upload) == held(sqlite.place, sqlite.upload)
    assert log_in(postgres.place) == SECOND["email"]
    # Numbers go on after the last: nothing is written over.
    made = post(postgres.place, "/api/projects/", json={"title": "made since"})
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
    post(place, "/api/projects/", json={"title": "made since"})
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
