"""What an installation keeps, part by part, and the commands that read and replace it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib import commands, docker, settings, versions, volume
from lib.cli import UserError

TEXT = Path(volume.__file__)
DATABASE = "label-studio"
"""That of PostgreSQL, and its user."""


@dataclass(frozen=True)
class Part:
    """Files that belong together: a volume, or a folder of this host.

    service: whose image and user see the volume; empty for a folder.
    leave_out: names in it of what is made again when it is missed.
    """

    name: str
    service: str = ""
    where: str = ""
    leave_out: tuple[str, ...] = ()

    def command(self, action: str, *options: str) -> list[str]:
        """The command line of one of ``lib/volume.py``'s actions on it."""
        words = [action, "/data" if self.service else self.where, *options]
        if action in ("save", "size"):
            words += [word for name in self.leave_out for word in ("--leave-out", name)]
        if not self.service:
            if action in ("save", "size"):
                words.append("--follow")
            elif action == "commit":
                words.append("--keep")
            return [sys.executable, str(TEXT), *words]
        # It needs one volume and nothing else of the host.
        return [
            docker.client(), "run", "--rm", "--interactive", "--network", "none", "--read-only",
            "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--log-driver", "none", "--mount", f"type=volume,source={self.where},target=/data",
            "--entrypoint", "python3", image(self.service), "-c", TEXT.read_text(), *words,
        ]  # fmt: skip

    def run(self, action: str, *options: str) -> str:
        """
        Raises:
            UserError: it failed.
        """
        done = subprocess.run(
            self.command(action, *options), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise UserError(f"{self.name}: {done.stderr.strip() or f'exit code {done.returncode}'}")
        return done.stdout

    def size(self) -> int:
        """Bytes in it."""
        return int(self.run("size"))


def parts(values: Mapping[str, str], datasets: bool = False) -> list[Part]:
    """All but the settings and PostgreSQL's database, in the order in which they are saved."""
    project = values["COMPOSE_PROJECT_NAME"]
    names = {"models": "MODELS_DIR", "projects": "PROJECTS_DIR"}
    if datasets:
        names["datasets"] = "DATASETS_DIR"
    return [
        # What Label Studio's database names was there before it: uploads come after it.
        Part("label-studio", "label-studio", f"{project}_label-studio-data"),
        Part("backend", "backend", f"{project}_backend-data", ("models/openvino",)),
        *(Part(name, where=str(settings.host_path(values[s]))) for name, s in names.items()),
    ]


def image(service: str) -> str:
    """The image of this version, or where it is not built yet, the newest that there is."""
    wanted = versions.images()[service]
    if commands.output([docker.client(), "image", "inspect", "--format", "{{.Id}}", wanted]):
        return wanted
    name = wanted.partition(":")[0]
    listed = commands.output([docker.client(), "image", "ls", "--format", "{{.ID}}", name])
    if not listed:
        raise UserError(f"found no image {name}. Run: make images")
    return listed.splitlines()[0]


def label_studio_version(project: str) -> str:
    """That of the Label Studio that has written the data: its container's, else its image's."""
    found = docker.containers(project, "label-studio")
    its_image = [docker.client(), "inspect", "--format", "{{.Image}}", *found[:1]]
    there = commands.output(its_image) if found else None
    label = '{{index .Config.Labels "org.opencontainers.image.description"}}'
    said = commands.output(
        [docker.client(), "image", "inspect", "--format", label, there or image("label-studio")]
    )
    return ".".join(map(str, versions.version_of(said or "")))


def has_volume(name: str) -> bool:
    return commands.output([docker.client(), "volume", "inspect", name]) is not None


# PostgreSQL


def in_postgres(container: str, *words: str) -> list[str]:
    """The command line of one of PostgreSQL's programs in its container."""
    return [docker.client(), "exec", "--interactive", container, *words]


def drop(database: str) -> str:
    """The statement that removes a database, whoever is connected to it."""
    return f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)'


def sql(container: str, *statements: str, database: str = "postgres") -> str:
    """What statements answer, without a transaction around them.

    Raises:
        UserError: one failed.
    """
    words = ["psql", "--username", DATABASE, "--dbname", database, "--no-psqlrc", "--quiet",
             "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]  # fmt: skip
    for statement in statements:
        words += ["--command", statement]
    done = subprocess.run(
        in_postgres(container, *words), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"PostgreSQL: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()
