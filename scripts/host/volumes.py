"""What an installation keeps, part by part, and its PostgreSQL, by the Docker Engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lib import commands, docker, settings, versions
from lib.cli import UserError
from lib.parts import MADE_AGAIN, TEXT, Folder, Part
from lib.postgres import Server

DATABASE = "label-studio"
"""That of PostgreSQL, and its user."""


@dataclass(frozen=True)
class Volume(Part):
    """A volume. ``service``: whose image and user see it."""

    service: str = ""

    def volume(self, action: str) -> list[str]:
        # It needs one volume and nothing else of the host.
        return [
            docker.client(), "run", "--rm", "--interactive", "--network", "none", "--read-only",
            "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
            "--log-driver", "none", "--mount", f"type=volume,source={self.where},target=/data",
            "--entrypoint", "python3", image(self.service), "-c", TEXT.read_text(), action,
            "/data",
        ]  # fmt: skip


def parts(values: Mapping[str, str], datasets: bool = False) -> list[Part]:
    """All but the settings and PostgreSQL's database, in the order in which they are saved."""
    project = values["COMPOSE_PROJECT_NAME"]
    names = {"models": "MODELS_DIR", "projects": "PROJECTS_DIR"}
    if datasets:
        names["datasets"] = "DATASETS_DIR"
    return [
        # What Label Studio's database names was there before it: uploads come after it.
        Volume("label-studio", f"{project}_label-studio-data", service="label-studio"),
        Volume("backend", f"{project}_backend-data", MADE_AGAIN, service="backend"),
        *(Folder(name, str(settings.host_path(values[s]))) for name, s in names.items()),
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


def server(container: str) -> Server:
    """PostgreSQL in its container."""
    return Server((docker.client(), "exec", "--interactive", container), DATABASE, DATABASE)
