"""A bundle on a Debian 13 with no way out: no route, and nobody who would answer a lookup."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import versions
from tests.host.conftest import a_host
from tests.host.machines import Machine, docker

pytestmark = pytest.mark.host

BUNDLE, KIT = "/mnt/bundle", "/home/owner/ls-yolo"


@pytest.fixture(scope="module")
def walled(bundle: Path) -> Iterator[Machine]:
    """The host, with a bundle on it and no Docker Engine."""
    volume = f"ls-yolo-test-{secrets.token_hex(3)}"
    try:
        with a_host("trixie", volume, name="walled") as host:
            docker("cp", bundle, f"{host.name}:{BUNDLE}")
            host.kit = KIT
            host.cut_off()
            yield host
    finally:
        docker("volume", "rm", "--force", volume, f"{volume}-pipe", check=False)


def install(host: Machine, folder: str = KIT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("docker") or "docker", "exec", host.name, f"{BUNDLE}/install", folder],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_a_bundle_that_was_altered_is_refused_before_anything_is_done(walled):
    walled.root("sh", "-c", f"echo x >>{BUNDLE}/data/models/yolov8n.pt")
    with walled.unchanged():
        done = install(walled)
    walled.root("truncate", "--size=-2", f"{BUNDLE}/data/models/yolov8n.pt")
    assert done.returncode == 1
    assert "data/models/yolov8n.pt: FAILED" in done.stdout
    assert "not the files that were packed" in done.stderr


def test_an_image_that_it_lacks_is_named(walled):
    """The engine, and the image that is in it, are there by then."""
    done = install(walled)
    assert done.returncode == 1
    assert f"found no image {versions.images()['backend']}" in done.stderr


def test_the_same_again_goes_on_and_ends_like_make_up(walled):
    walled.share_image(versions.images()["backend"])
    done = install(walled)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all images are there" in done.stdout
    assert "== Ready after" in done.stdout
    assert walled.predicted() == walled.tasks() != set()


def test_make_up_there_builds_and_fetches_nothing(walled):
    walled.root("make", "-C", KIT, "up")


def test_a_folder_that_holds_something_else_is_left_alone(walled):
    done = install(walled, "/home/owner")
    assert done.returncode == 1
    assert "/home/owner: holds something else than the kit of this bundle" in done.stderr


def test_nothing_has_asked_a_network(walled):
    assert walled.nothing_left()
