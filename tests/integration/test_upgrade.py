"""Another version of the kit, on an installation with work in it; and back where it fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from commits import Commits, broken_images, next_images
from conftest import ROOT
from installation import Installation, installation
from lib import versions

pytestmark = pytest.mark.docker

NEXT, BAD = "99.0.0", "99.1.0"


class Kit:
    """An installation that a clone runs. Its tags: a newer version, one that is broken, one whose
    script is, and one of an older Label Studio.
    """

    def __init__(self, place: Installation, index: Path) -> None:
        self.place = place
        place.root = place.folder / "kit"
        commits = Commits(index)
        now = commits.now()
        newer = commits.after(now, {"VERSION": f"{NEXT}\n", **next_images()})
        lock = (ROOT / versions.LOCK).read_text()
        older = lock.replace(f"label-studio=={versions.label_studio()}", "label-studio==1.20.0")
        commits.clone(now, place.root)
        for name, commit in {
            "newer": newer,
            "broken": commits.after(newer, {"VERSION": f"{BAD}\n", **broken_images()}),
            "older": commits.after(now, {versions.LOCK: older}),
            "unreadable": commits.after(newer, {"scripts/upgrade.py": "from nowhere import it"}),
        }.items():
            self.git("tag", name, commit)

    def git(self, *words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=self.place.root, check=True, capture_output=True, text=True
        ).stdout.strip()

    @property
    def at(self) -> str:
        return self.git("branch", "--show-current") or self.git(
            "describe", "--tags", "--exact-match"
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "scripts/upgrade.py", *words], cwd=self.place.root,
            env=self.place.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip

    def upgrade(self, *words: str) -> tuple[int, str]:
        process = self.start(*words)
        output, _ = process.communicate(timeout=600)
        return process.returncode, output

    def images(self) -> dict[str, str]:
        """The tags that the services run."""
        client, found = docker.from_env(), self.place.containers()
        return {name: client.containers.get(one).attrs["Config"]["Image"]
                for name, one in found.items()}  # fmt: skip

    def work(self) -> list[Any]:
        return [self.place.predictions(), self.place.get("/api/projects/")["results"]]

    def backups(self) -> list[Path]:
        return sorted((self.place.root / "backups").glob("*.tar.gz"))


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    with installation(POSTGRES=str(int(request.param == "PostgreSQL"))) as place:
        kit = Kit(place, tmp_path_factory.mktemp("index"))
        code, output = place.up()
        assert code == 0, output
        yield kit
    for name in versions.images():
        for tag in (NEXT, BAD):
            with contextlib.suppress(docker.errors.ImageNotFound):
                docker.from_env().images.remove(f"ls-yolo/{name}:{tag}", force=True)


def test_what_cannot_be_is_refused_before_anything_changes(kit: Kit) -> None:
    before = kit.at, kit.images()
    readme = kit.place.root / "README.md"
    text = readme.read_text()
    ours = versions.label_studio()
    for version, said in (
        ("nowhere", "found no version nowhere in this clone"),
        ("older", f"older has Label Studio 1.20.0, and {ours} runs, whose data it may not read"),
        ("newer", "files of the kit were changed: README.md"),
        ("", "this clone knows no release"),
    ):
        if version == "newer":
            readme.write_text("mine")
        code, output = kit.upgrade(*[version] * bool(version))
        readme.write_text(text)
        assert code == 1
        assert said in output
    assert (kit.at, kit.images()) == before
    assert not kit.backups()


def test_a_version_whose_script_does_not_run_is_taken_back(kit: Kit) -> None:
    work, images = kit.work(), kit.images()
    code, output = kit.upgrade("unreadable")
    assert code == 1
    assert "mine runs as before, since unreadable failed: its scripts/upgrade.py ends" in output
    assert (kit.at, kit.work(), kit.images()) == ("mine", work, images)
    assert not kit.backups()


def test_an_upgrade_that_fails_is_taken_back_by_itself_and_says_why(kit: Kit) -> None:
    work, images = kit.work(), kit.images()
    code, output = kit.upgrade("broken")
    assert code == 1, output
    assert "label-studio: this version is broken" in output, output
    assert "mine runs as before, since broken failed: the services did not become" in output
    # Data that the broken version has migrated would be refused by the one of before.
    assert (kit.at, kit.work(), kit.images()) == ("mine", work, images)
    assert kit.upgrade("mine") == (
        0, "mine is what this clone is at. Newer versions come by: git fetch --tags\n"
    )  # fmt: skip


def test_an_upgrade_that_is_killed_goes_on(kit: Kit) -> None:
    work, backups = kit.work(), len(kit.backups())
    process = kit.start("newer")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("== Services"):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "an upgrade to newer is half done" in kit.upgrade("broken")[1]
    code, output = kit.upgrade()
    assert code == 0, output
    assert "newer runs" in output
    assert (kit.at, kit.work()) == ("newer", work)
    images = {name: tag for name, tag in kit.images().items() if name != "postgres"}
    assert images == {name: f"ls-yolo/{name}:{NEXT}" for name in versions.images()}
    assert len(kit.backups()) == backups + 1
    kept = docker.from_env().images.list(
        filters={"reference": f"ls-yolo/*:before-upgrade-{kit.place.name}"}
    )
    assert not kept
