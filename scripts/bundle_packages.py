"""The packages of a bundle: which ones, from where, for each suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import build
import install_engine
from host import apt, suites
from lib import net, settings, versions
from lib.cli import UserError, say

# Beside Docker: what runs `make up`, Ansible on a control machine, and addresses on the LAN.
MORE_PACKAGES = ("python3", "python3-venv", "make", "ca-certificates", "nftables")
TOOLKIT = "nvidia-container-toolkit"
TOOLKIT_REPOSITORY = "https://nvidia.github.io/libnvidia-container"
TOOLKIT_KEY = "/etc/apt/keyrings/nvidia-container-toolkit.asc"


def fetch_packages(
    chosen: Iterable[suites.Suite], folder: Path, gpu: bool
) -> dict[str, dict[str, Any]]:
    """Brings the packages of each suite into a folder of its name; says by that name what came.

    A suite that is not reached has nothing but the reason.
    """
    values = settings.values()
    found: dict[str, dict[str, Any]] = {}
    with suites.container(build.BASE, folder, values) as inside:
        for suite in chosen:
            say(f"{suite.codename}: fetching packages")
            try:
                found[suite.codename] = fetch_suite(inside, suite, gpu)
            except UserError as failure:
                found[suite.codename] = {"left_out": str(failure)}
                say(f"{suite.codename}: left out: {failure}")
    return found


def fetch_suite(inside: list[str], suite: suites.Suite, gpu: bool) -> dict[str, Any]:
    """
    Raises:
        UserError: the suite is not reached.
    """
    mirror = suites.UBUNTU_MIRROR if suite.family == "ubuntu" else apt.debian_mirror()
    pool = suites.Apt(inside, suite)
    if suite.family == "ubuntu":
        debian = suites.Apt(inside, suites.Suite("debian", "trixie"))
        debian.add("debian", debian.suite.sources(apt.debian_mirror()))
        debian.unpack("ubuntu-keyring")
    pool.add("distribution", suite.sources(mirror))
    repository = install_engine.DOCKER_REPOSITORY
    has_docker = add_repository(
        pool, "docker", f"{repository}/{suite.family}/gpg", str(install_engine.DOCKER_KEY),
        install_engine.docker_source(suite.family, suite.codename, "amd64"),
    )  # fmt: skip
    parts = tuple(install_engine.PACKAGES[suite.family])
    candidates = pool.candidates(*install_engine.names_of(suite.family))
    plan = install_engine.choose(
        install_engine.Facts(suite.family, suite.codename, parts, has_docker, candidates),
        versions.minimums(),
    )
    if plan.source == "trixie":
        pool.prefer(install_engine.trixie_pin(plan.packages))
        pool.add("trixie", install_engine.trixie_source(mirror))
    # By the pin alone: with /trixie, what they need would come from there too.
    names = [*(name.removesuffix("/trixie") for name in plan.packages), *MORE_PACKAGES]
    if gpu:
        if add_repository(
            pool, "nvidia", f"{TOOLKIT_REPOSITORY}/gpgkey", TOOLKIT_KEY,
            f"Types: deb\nURIs: {TOOLKIT_REPOSITORY}/stable/deb/amd64\nSuites: /\n"
            f"Signed-By: {TOOLKIT_KEY}\n",
        ):  # fmt: skip
            names.append(TOOLKIT)
        else:
            say(f"{suite.codename}: without {TOOLKIT}: {TOOLKIT_REPOSITORY} does not answer")
    pool.fetch(names)
    return {"from": plan.source, "asked_for": names}


def add_repository(pool: suites.Apt, name: str, key: str, path: str, sources: str) -> bool:
    """Adds a repository with its key; False where it does not answer."""
    try:
        with net.fetch(key, timeout=5, ca_bundle=settings.values()["CA_BUNDLE"]) as response:
            pool.write(path, response.read().decode())
    except (OSError, ValueError):
        return False
    pool.add(name, sources)
    return True
