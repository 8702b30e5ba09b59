"""What is done with a bundle that is unpacked: an installation from it, a push to a registry."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import build
import bundle_packages
import env
import install_engine
import password
import up
from host import apt, docker_engine, system
from lib import commands, docker, files, settings, tars, versions
from lib.cli import UserError, say
from lib.progress import Progress

FORMAT = 1
IMAGES, DATA, PACKAGES, MANIFEST = "images.tar.gz", "data", "packages", "manifest.json"


def fingerprint(tag: str) -> str:
    """What tells an image from another of the same name; empty where it is not here.

    Not the id: engines that keep images in containerd have another one for the same.
    """
    form = "{{json .RootFS.Layers}} {{json .Config.Labels}}"
    found = commands.output([docker.client(), "image", "inspect", "--format", form, tag])
    return hashlib.sha256(found.encode()).hexdigest() if found else ""


def size_of(tag: str) -> int:
    command = [docker.client(), "image", "inspect", "--format", "{{.Size}}", tag]
    return int(commands.output(command) or 0)


def load(archive: Path) -> None:
    """Gives the Docker Engine the images of an archive.

    Raises:
        UserError: it does not take them.
    """
    bar = Progress(archive.stat().st_size)
    process = subprocess.Popen(
        [docker.client(), "load", "--quiet"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    said = commands.Reader(process.stderr)
    # What it says tells why it does not read on.
    with archive.open("rb") as file, contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        while block := file.read(tars.CHUNK):
            pipe.write(block)
            bar.advance(len(block), IMAGES)
    bar.close()
    if process.wait():
        raise UserError(f"docker load: {said.text() or f'exit code {process.returncode}'}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """
    Raises:
        UserError: the folder is no bundle that this version knows.
    """
    try:
        about = dict(json.loads((folder / MANIFEST).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: found no {MANIFEST} of a bundle ({error}). Unpack one: tar -xf "
            "ls-yolo-...-amd64.tar"
        ) from None
    if about.get("format") != FORMAT:
        raise UserError(
            f"{folder}: found format {about.get('format')!r}, expected {FORMAT}: use the kit that "
            "lies in the bundle"
        )
    return about


def bring_packages(folder: Path, packages: Mapping[str, Mapping[str, Any]]) -> None:
    """The engine where it is missing, and with GPU=1 NVIDIA's container toolkit.

    Raises:
        UserError: something is missing, and so are its packages.
    """
    release = system.os_release()
    codename = release.get("VERSION_CODENAME", "")
    about = packages.get(codename, {})
    pool = folder / PACKAGES / codename
    there = [suite for suite, found in packages.items() if "asked_for" in found]
    if docker_engine.find_engine().lacks() and codename not in there:
        raise UserError(
            f"the Docker Engine is missing, and this bundle has no packages for "
            f"{release.get('PRETTY_NAME')}, only for: {', '.join(there) or 'nothing'}. Install it "
            f"by hand, then run this again: {docker_engine.DOCS}"
        )
    if install_engine.main(["--packages", str(pool)] if codename in there else []):
        raise UserError("the Docker Engine is not ready; the lines above say why")
    toolkit = bundle_packages.TOOLKIT
    gpu = settings.enabled(settings.values(), "GPU")
    if gpu and toolkit in about.get("asked_for", ()) and not shutil.which("nvidia-ctk"):
        apt.Host(pool).apt("install", "-y", "--no-install-recommends", "--no-remove", toolkit)


def bring_data(folder: Path, packed: Mapping[str, Mapping[str, Any]]) -> None:
    """Puts weights and images where they are missing; what is there is somebody's own.

    Raises:
        UserError: one is not what was packed, or cannot be written.
    """
    values = settings.values()
    for name, file in packed.items():
        top, _, rest = name.partition("/")
        part, _, path = rest.partition("/")
        if top != DATA:
            continue
        setting = f"{part.upper()}_DIR"
        target = settings.host_path(values[setting]) / path
        if not target.exists():
            data = (folder / name).read_bytes()
            files.place(data, file["sha256"], target, name, setting=setting)
            say(f"put {target}")


def bring_images(folder: Path, images: Mapping[str, Mapping[str, Any]]) -> None:
    if all(fingerprint(tag) == image["content"] for tag, image in images.items()):
        say("all images are there")
        return
    say(f"loading {', '.join(images)} (some minutes)")
    load(folder / IMAGES)


def take_over(old: Path) -> None:
    """Makes the settings of another installation this one's, so that its data are too; once. What
    lies in its folders stays there.

    Raises:
        UserError: there is none in ``old``.
    """
    if settings.env_text():
        return
    try:
        text = (old / ".env").read_text()
    except OSError as error:
        raise UserError(
            f"{old / '.env'}: {error.strerror}. Name the folder of an installation"
        ) from None
    given = settings.parse_env(text)
    for name in ("MODELS_DIR", "DATASETS_DIR", "PROJECTS_DIR"):
        default = name.removesuffix("_DIR").lower()
        path = (old / Path(given.get(name) or default).expanduser()).resolve()
        text = password.replaced(text, name, str(path))
    files.write_private(settings.ENV_FILE, password.replaced(text, "IMAGES", "present"))
    say(f"{settings.ENV_FILE}: from {old}")


def install(folder: Path, old: Path | None = None) -> int:
    """
    old: the folder of the installation that this one goes on with.

    Raises:
        UserError: a person must put something right first.
    """
    about = read_manifest(folder)
    os.environ["IMAGES"] = "present"
    if old:
        take_over(old)
    up.step("Settings")
    env.main()  # now, since a user who must log in again may go on with make up
    up.step("Engine")
    bring_packages(folder, about["packages"])
    up.step("Weights and images from the bundle")
    bring_data(folder, about["files"])
    bring_images(folder, about["images"])
    return up.main()


def push(registry: str, folder: Path | None) -> None:
    """Gives a registry the images, under names that the chart puts together the same way.

    Raises:
        UserError: it does not take them, or there are none.
    """
    registry = registry.rstrip("/")
    if not registry or "://" in registry:
        raise UserError(
            f"found registry {registry!r}, expected a host as docker names it, perhaps with a "
            "path: REGISTRY=registry.example.com/team"
        )
    if folder:
        images = read_manifest(folder)["images"]
        bring_images(folder, images)
        tags = list(images)
    else:
        tags = list(versions.images().values())
        build.need(tags)
    for tag in tags:
        commands.run([docker.client(), "tag", tag, f"{registry}/{tag}"])
        commands.run([docker.client(), "push", "--quiet", f"{registry}/{tag}"])
    say(f"\nThe chart's values for it:\n\n{chart_values(registry, tags)}")


def chart_values(registry: str, tags: Iterable[str]) -> str:
    lines = ["global:", f"  imageRegistry: {registry}"]
    if versions.POSTGRES_IMAGE in tags:
        repository, _, tag = versions.POSTGRES_IMAGE.partition(":")
        lines += ["postgres:", f'  image: {{repository: {repository}, tag: "{tag}"}}']
    return "\n".join(lines)
