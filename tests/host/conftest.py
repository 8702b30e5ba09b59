"""One host for each release, one network segment, and the images brought to a host's engine once.

A host is built from bare to torn down through the files below, in this order: each test finds what
those before it left, as building it anew for each would take minutes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commits import Commits
from conftest import ARTIFACTS, lacking
from lib import ROOT, commands, versions
from tests.host.machines import TOOLS, Machine, Neighbour, Outcome, Segment, docker, image, run

ORDER = (
    "test_fresh_host", "test_network", "test_prelabel", "test_gpu", "test_switched_off",
    "test_upkeep", "test_older_debian", "test_bundle",
)  # fmt: skip
# The segment's addresses. Label Studio's and the backend's are the product's own defaults.
HOST, SHIM, FRIEND, STRANGER = (f"192.168.103.{last}" for last in (140, 131, 150, 160))
LABEL_STUDIO, BACKEND = "192.168.103.130", "192.168.103.129"
BUNDLE = "/mnt/images.tar"
METRICS = "/var/lib/ls-yolo-backup.prom"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    ours = [item for item in items if here in item.path.parents]
    ours.sort(key=lambda item: ORDER.index(item.path.stem))
    rest = [item for item in items if here not in item.path.parents]
    items[:] = [*rest, *ours]


def need_machines() -> None:
    """Skips what this machine cannot do."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        packages = " ".join(dict.fromkeys(TOOLS[tool] for tool in missing))
        lacking(
            f"found no {', '.join(missing)}. `make test-host` installs what it needs on Debian and "
            f"Ubuntu; elsewhere, as root: apt-get install {packages}"
        )
    demo = (ROOT / "models" / "yolov8n.pt", ROOT / "datasets" / "demo")
    if missing := [str(path) for path in demo if not path.exists()]:
        lacking(f"found no {', '.join(missing)}; `make images` brings them")
    if not commands.output(["docker", "version", "-f", "{{.Server.Os}}"]):
        lacking("no Docker engine answers; `make test-host` starts one")
    for tag in versions.images().values():
        if not commands.output(["docker", "image", "inspect", "-f", "{{.Id}}", tag]):
            lacking(f"{tag} is not built; `make images` builds it")
    probe = ["docker", "run", "--rm", "--privileged", image("trixie"), "mount", "-t", "tmpfs", "x"]
    if commands.output([*probe, "/mnt"], 60) is None:
        lacking("this engine runs no privileged containers, which hosts with systemd need")


@pytest.fixture(scope="session")
def segment() -> Iterator[Segment]:
    need_machines()
    segment = Segment()
    if route := segment.taken():
        lacking(f"the tests' network {segment.subnet} is in use here: {route}")
    segment.create()
    yield segment
    segment.remove()


@pytest.fixture(scope="session")
def engine_volume() -> Iterator[str]:
    """What the hosts' engines keep: the second host gets the disk of the first, images and all."""
    name = f"ls-yolo-test-{secrets.token_hex(3)}"
    yield name
    docker("volume", "rm", "--force", name, f"{name}-pipe", check=False)


@contextmanager
def a_host(
    suite: str, volume: str, segment: Segment | None = None, name: str = ""
) -> Iterator[Machine]:
    """name: of its logs, where another host has the suite's."""
    name = name or suite
    # ssh keeps a socket there, whose path must be short.
    folder = Path(tempfile.mkdtemp(prefix="ls-yolo-host-"))
    host = Machine(suite, folder, volume, segment, HOST)
    try:
        host.start()
        yield host
    finally:
        ARTIFACTS.mkdir(exist_ok=True)
        if host.log.exists():
            shutil.copy(host.log, ARTIFACTS / f"playbooks-{name}.log")
        journal = host.root("journalctl", "--no-pager", "--boot=0", check=False)
        (ARTIFACTS / f"journal-{name}.log").write_text(journal)
        host.remove()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def host(engine_volume: str, segment: Segment) -> Iterator[Machine]:
    """Debian 13, bare."""
    with a_host("trixie", engine_volume, segment) as host:
        yield host


@pytest.fixture(scope="session")
def friend(segment: Segment) -> Iterator[Neighbour]:
    """Another machine on the segment."""
    neighbour = Neighbour(segment, FRIEND)
    neighbour.start()
    yield neighbour
    neighbour.remove()


@pytest.fixture(scope="session")
def stranger(friend: Neighbour) -> Neighbour:
    """The same machine, which may also call from an address that the firewall does not name."""
    friend.add(STRANGER)
    return friend


@pytest.fixture(scope="session")
def commits(tmp_path_factory: pytest.TempPathFactory) -> Commits:
    return Commits(tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="session")
def commit(commits: Commits) -> str:
    """The kit as it lies here."""
    return commits.now()


@pytest.fixture(scope="session")
def variables(commit: str) -> dict[str, Any]:
    """What an owner would write into the inventory, for the addresses on the LAN and a firewall."""
    return {
        "network_macvlan": True,
        "network_parent": "eth1",
        "network_shim_address": SHIM,
        "network_dhcp_range": "192.168.103.2-192.168.103.63",
        "ls_yolo_label_studio_from": [FRIEND],
        "ls_yolo_backend_from": [FRIEND],
        "ls_yolo_version": commit,
        "ls_yolo_images": "bundle",
        "ls_yolo_images_bundle": BUNDLE,
        "ls_yolo_images_bundle_on_host": True,
        "ls_yolo_backup_at": "Sun 02:30",
        "ls_yolo_backup_metrics": METRICS,
        "ls_yolo_backend_env": {"LABEL_STUDIO_PASSWORD": secrets.token_urlsafe(24)},
    }


@pytest.fixture(scope="session")
def bundle(
    commits: Commits, commit: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A bundle of the kit as it lies here, unpacked: of the images Label Studio's alone, since the
    other takes minutes to pack."""
    need_machines()
    folder = tmp_path_factory.mktemp("bundle")
    clone = folder / "clone"
    commits.clone(commit, clone)
    (ROOT / ".cache" / "bundle").mkdir(parents=True, exist_ok=True)
    # What an earlier run has fetched is not fetched again.
    for path in (".tools/bin", ".cache/bundle", "models/yolov8n.pt", "models/yolov8n-seg.pt",
                 "datasets/demo"):  # fmt: skip
        (clone / path).parent.mkdir(exist_ok=True)
        (clone / path).symlink_to(ROOT / path)
    run(
        sys.executable, clone / "scripts" / "bundle.py", "make", "--without", "backend",
        "--without", "postgres", "--suites", "bookworm,trixie",
        env={**os.environ, "IMAGES": "present"}, timeout=600,
    )  # fmt: skip
    (made,) = (clone / "bundles").iterdir()
    run("tar", "-C", folder, "-xf", made)
    made.unlink()
    yield folder / made.stem
    shutil.rmtree(folder)


def put_bundle(host: Machine, folder: Path) -> None:
    """Label Studio's image on the host, as `docker save` writes it."""
    file = folder / "images.tar"
    docker("save", "--output", file, versions.images()["label-studio"])
    docker("cp", file, f"{host.name}:{BUNDLE}")
    file.unlink()


@pytest.fixture(scope="session")
def engine(host: Machine, variables: dict[str, Any]) -> Outcome:
    """The playbook with the tag docker alone, on the bare host."""
    outcome = host.playbook("site.yml", "--tags", "docker", variables=variables)
    assert outcome.code == 0, outcome.message()
    return outcome


@pytest.fixture(scope="session")
def site(
    host: Machine,
    engine: Outcome,
    variables: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """The playbook's first whole run. The larger image is there, the other comes from a bundle."""
    host.share_image(versions.images()["backend"])
    put_bundle(host, tmp_path_factory.mktemp("bundle"))
    outcome = host.playbook("site.yml", variables=variables)
    assert outcome.code == 0, outcome.message()
    return outcome
