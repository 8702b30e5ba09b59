"""Other versions of this kit, for what brings a host or an installation to one."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from lib import ROOT, versions

# Label Studio of a version that migrates the data and then does not start.
BROKEN = """
from ls_kit import entrypoint
entrypoint.set_up_django()
from django.db.migrations.recorder import MigrationRecorder
MigrationRecorder.Migration.objects.create(app="tasks", name="9999_later")
raise SystemExit("label-studio: this version is broken")
"""


class Commits:
    """Commits that no branch has, of this checkout as it lies here and as it might become."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "GIT_INDEX_FILE": str(folder / "index")}
        for role in ("AUTHOR", "COMMITTER"):
            self.environment[f"GIT_{role}_NAME"] = "test"
            self.environment[f"GIT_{role}_EMAIL"] = "test@example.com"

    def git(self, *words: str, input: str | None = None) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], env=self.environment, input=input, text=True,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def now(self) -> str:
        """What is committed, changed and new; nothing that git ignores."""
        self.git("read-tree", "HEAD")
        self.git("add", "--all")
        return self.commit("HEAD")

    def after(self, parent: str, files: dict[str, str], without: str = "") -> str:
        """``parent`` with these files changed or added, and perhaps without one."""
        self.git("read-tree", parent)
        for path, text in files.items():
            blob = self.git("hash-object", "-w", "--stdin", input=text)
            self.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}")
        if without:
            self.git("update-index", "--force-remove", without)
        return self.commit(parent)

    def commit(self, parent: str) -> str:
        return self.git("commit-tree", self.git("write-tree"), "-p", parent, "-m", "for a test")

    def clone(self, commit: str, folder: Path) -> None:
        """A repository at a commit, on its branch ``mine``. It shares the objects of this one,
        which may be shallow, and whose branches lack the commit.
        """
        folder.mkdir()
        run = functools.partial(subprocess.run, cwd=folder, check=True, capture_output=True)
        run(["git", "init", "--quiet", "--initial-branch", "mine"])
        objects, shallow = self.git(
            "rev-parse", "--path-format=absolute", "--git-path", "objects", "--git-path", "shallow"
        ).splitlines()
        (folder / ".git/objects/info/alternates").write_text(f"{objects}\n")
        if Path(shallow).exists():
            shutil.copy(shallow, folder / ".git/shallow")
        run(["git", "reset", "--quiet", "--hard", commit])


def next_images() -> dict[str, str]:
    """The images of a version after this one: built in a moment, of those that are there."""
    return {f"{name}/Dockerfile": f"FROM {tag}\n" for name, tag in versions.images().items()}


def broken_images() -> dict[str, str]:
    """Those of a version that fails once it has changed the data."""
    dockerfile = f"FROM {versions.images()['label-studio']}\nCOPY ls_kit/broken.py /\n"
    dockerfile += 'ENTRYPOINT ["/opt/venv/bin/python", "/broken.py"]\n'
    broken = {"label-studio/Dockerfile": dockerfile, "label-studio/ls_kit/broken.py": BROKEN}
    return {**next_images(), **broken}
