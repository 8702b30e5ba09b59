"""Tasks of the roles that need no host, played here, with a stand-in for what they call."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from lib import ROOT

DOCKER = """#!/bin/sh
echo "$*" >>"$0.log"
test "$1 $2" != "image inspect"
"""


def play(tmp_path, tasks, **variables):
    """What Ansible prints while it plays one file of ls_yolo's tasks on this machine."""
    book = tmp_path / "play.yml"
    role = {"name": "ls_yolo", "tasks_from": tasks}
    book.write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "tasks": [{"ansible.builtin.include_role": role}],
                }
            ]
        )
    )
    given = tmp_path / "given.yml"
    given.write_text(yaml.safe_dump({"ansible_python_interpreter": sys.executable, **variables}))
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local",
         "-e", f"@{given}", book],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        },
    )  # fmt: skip


@pytest.fixture
def kit(tmp_path):
    """A folder with a kit's version, as the tasks of images need it."""
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "VERSION").write_text("1.2.3\n")
    return folder


def test_images_of_a_registry_get_the_kit_s_names(tmp_path, kit):
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    done = play(
        tmp_path,
        "images.yml",
        ls_yolo_dir=str(kit),
        ls_yolo_user=getpass.getuser(),
        ls_yolo_images="registry",
        ls_yolo_images_registry="registry.example.com/team",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = docker.with_name("docker.log").read_text().splitlines()
    tags = ["ls-yolo/label-studio:1.2.3", "ls-yolo/backend:1.2.3"]
    assert calls[-4:] == [
        *(f"pull --quiet registry.example.com/team/{tag}" for tag in tags),
        *(f"tag registry.example.com/team/{tag} {tag}" for tag in tags),
    ]


def test_a_folder_without_a_kit_s_list_is_somebody_else_s(tmp_path, kit):
    done = play(tmp_path, "kit-look.yml", ls_yolo_dir=str(kit))
    assert done.returncode == 2
    assert f"ls_yolo_dir: found VERSION in {kit}, which no playbook put there" in done.stdout


def test_only_listed_files_are_removed(tmp_path):
    for name in ("a/old.py", "a/__pycache__/old.pyc", "b/old.py", "b/mine.pt", "mine.txt"):
        (tmp_path / "kit" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "kit" / name).touch()
    done = play(
        tmp_path,
        "kit-remove.yml",
        ls_yolo_dir=str(tmp_path / "kit"),
        ls_yolo_gone=["a/old.py", "b/old.py", "c/went by itself.py"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    left = sorted(str(path.relative_to(tmp_path / "kit")) for path in (tmp_path / "kit").rglob("*"))
    assert left == ["b", "b/mine.pt", "mine.txt"]


def archive(tmp_path, *volumes):
    """Saves .env and the volumes; how it went, and what lies among the backups then."""
    (tmp_path / "backups").mkdir()
    (tmp_path / ".env").write_text("A=1\n")
    for volume in volumes[:2]:
        (tmp_path / "volumes" / volume / "_data").mkdir(parents=True)
        (tmp_path / "volumes" / volume / "_data" / "file").write_text(volume)
    done = play(
        tmp_path,
        "archive.yml",
        ls_yolo_dir=str(tmp_path),
        ls_yolo_backup=str(tmp_path / "backups" / "now.tar.gz"),
        ls_yolo_volume_folders=[str(tmp_path / "volumes" / volume) for volume in volumes],
    )
    return done, list((tmp_path / "backups").iterdir())


def test_a_backup_has_a_folder_for_each_volume_and_only_its_owner_reads_it(tmp_path):
    done, (file,) = archive(tmp_path, "studio", "backend")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (file.name, file.stat().st_mode & 0o777) == ("now.tar.gz", 0o600)
    with tarfile.open(file) as found:
        names = {member.name for member in found if member.isfile()}
    assert names == {".env", "studio/_data/file", "backend/_data/file"}


def test_a_backup_that_fails_half_way_leaves_nothing_that_looks_like_one(tmp_path):
    done, found = archive(tmp_path, "studio", "backend", "not there")
    assert done.returncode == 2
    assert "not there: Cannot stat" in done.stdout
    assert found == []
