"""Debian 12, whose own engine is too old, and whose network ifupdown looks after; without addresses
on the LAN, its ports published to all.

It gets the disk of the first host's engine, so the images are there; nothing else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lib import ROOT
from tests.host.conftest import HOST, STRANGER, a_host
from tests.host.machines import Machine, Neighbour, Outcome, Segment, run

pytestmark = pytest.mark.host

PORTS = (8081, 9091)
PROJECT = {
    "title": "Mine",
    "models": ["mine"],
    "storage": {"path": "mine"},
    "label_config": (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="person"/></RectangleLabels></View>'
    ),
}


@pytest.fixture(scope="module")
def older(host: Machine, engine_volume: str, segment: Segment) -> Iterator[Machine]:
    host.stop()
    with a_host("bookworm", engine_volume, segment) as older:
        yield older


@pytest.fixture(scope="module")
def mine(
    bundle: Path, variables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The inventory of an owner with models, images and a project of their own, and a bundle."""
    folder = tmp_path_factory.mktemp("mine")
    weights, images = ROOT / "models", ROOT / "datasets" / "demo"
    for name, files in (
        ("models", {"mine.pt": (weights / "yolov8n.pt").read_bytes(),
                    "models.yaml": yaml.safe_dump({"mine": {"weights": "mine.pt"}}).encode()}),
        ("datasets/mine", {file.name: file.read_bytes() for file in images.glob("*.jpg")}),
        ("projects", {"mine.yaml": yaml.safe_dump(PROJECT).encode()}),
    ):  # fmt: skip
        (folder / name).mkdir(parents=True)
        for file, data in files.items():
            (folder / name / file).write_bytes(data)
    return {
        **{name: value for name, value in variables.items() if "images" not in name},
        "ls_yolo_bundle": str(bundle),
        **{
            f"ls_yolo_{name}_src": str(folder / name) for name in ("models", "datasets", "projects")
        },
        "ls_yolo_demo": False,
        "network_macvlan": False,
        "ls_yolo_backend_env": {"BIND_ADDRESS": "0.0.0.0"},
    }


def test_a_check_of_a_bare_host_does_nothing(older, mine):
    with older.unchanged():
        outcome = older.playbook("site.yml", "--check", "--diff", variables=mine)
        assert outcome.code == 0, outcome.message()


def test_an_archive_of_something_else_is_refused(older, mine, tmp_path):
    other = tmp_path / "other.tar.gz"
    run("tar", "-czf", other, "-C", ROOT.parent, f"{ROOT.name}/scripts/up.py")
    outcome = older.playbook(
        "site.yml", "--tags", "docker", variables={**mine, "ls_yolo_kit_archive": str(other)}
    )
    assert outcome.code == 2
    assert f"found no scripts/up.py in {other}" in outcome.message()


def test_an_engine_of_another_suite_is_not_taken_unasked(older, mine):
    outcome = older.playbook(
        "site.yml", "--tags", "docker", variables={**mine, "docker_source": "auto"}
    )
    assert outcome.code == 2
    assert "docker_allow_newer_suite: true" in outcome.message()
    assert "docker_repository (a mirror" in outcome.message()


@pytest.fixture(scope="module")
def older_site(older: Machine, mine: dict[str, Any]) -> Outcome:
    # A .env that was brought along has a port that the inventory does not know.
    older.root("mkdir", "-p", "/opt/ls-yolo")
    older.write("/opt/ls-yolo/.env", f"LABEL_STUDIO_PORT={PORTS[0]}\n")
    older.cut_off()
    outcome = older.playbook("site.yml", variables=mine)
    assert outcome.code == 0, outcome.message()
    return outcome


def guarded(friend: Neighbour, stranger: Neighbour, port: int) -> bool:
    url = f"http://{HOST}:{port}/health"
    return (friend.get(url), stranger.get(url, STRANGER)) == ("200", "timeout")


def test_a_port_that_env_keeps_is_closed_to_everyone_else(older_site, friend, stranger):
    assert guarded(friend, stranger, PORTS[0])
    assert guarded(friend, stranger, 9090)


def test_the_owner_s_own_images_are_predicted_by_their_own_model(older, older_site):
    assert older.predicted() == older.tasks() != set()
    (project,) = older.label_studio("/api/projects/")["results"]
    assert project["title"] == "Mine"


def test_everything_comes_from_the_bundle_and_nothing_asks_a_network(older, older_site):
    assert older.nothing_left()
    assert older.settings()["IMAGES"] == "present"


def test_a_second_run_changes_nothing(older, older_site, mine):
    outcome = older.playbook("site.yml", variables=mine)
    assert outcome.code == 0, outcome.message()
    assert outcome.counts["changed"] == 0, outcome.changed


def test_it_comes_back_after_a_reboot_with_its_firewall_also_at_a_port_changed_by_hand(
    older, older_site, friend, stranger
):
    older.root("sed", "-i", f"s/^BACKEND_PORT=.*/BACKEND_PORT={PORTS[1]}/", "/opt/ls-yolo/.env")
    older.reboot()
    older.wait_until_healthy()
    assert older.predicted() == older.tasks()
    assert all(guarded(friend, stranger, port) for port in PORTS)
