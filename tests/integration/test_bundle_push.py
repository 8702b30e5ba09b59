"""Images of a bundle in a registry of one's own: Debian's, in a container on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import secrets
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import requests

from conftest import ROOT, client_with, free_port

pytestmark = pytest.mark.docker

BASE = "debian:trixie-slim"
CONFIGURATION = json.dumps(
    {
        "version": 0.1,
        "http": {"addr": ":5000"},
        "storage": {"filesystem": {"rootdirectory": "/var/lib/docker-registry"}},
    }
)


@pytest.fixture(scope="module")
def client() -> Any:
    return client_with(BASE)


@pytest.fixture(scope="module")
def registry(client: Any) -> Iterator[str]:
    address = f"127.0.0.1:{free_port()}"
    install = "apt-get -qq install -y --no-install-recommends docker-registry"
    serve = f"echo '{CONFIGURATION}' >/registry.yml && exec docker-registry serve /registry.yml"
    container = client.containers.run(
        BASE, ["sh", "-c", f"apt-get -qq update && {install} && {serve}"], detach=True,
        name=f"ls-yolo-test-{secrets.token_hex(3)}",
        ports={"5000/tcp": ("127.0.0.1", int(address.rpartition(":")[2]))},
    )  # fmt: skip
    try:
        end = time.monotonic() + 180
        while time.monotonic() < end:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://{address}/v2/", timeout=2).ok:
                    break
            time.sleep(1)
        else:
            raise AssertionError(container.logs().decode())
        yield address
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def tag(client: Any) -> Iterator[str]:
    """An image of one layer, under a name like ours."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"one"))
    tag = f"ls-yolo-test/{secrets.token_hex(3)}:1"
    data.seek(0)
    client.api.import_image_from_data(data.read(), *tag.split(":"))
    yield tag
    with contextlib.suppress(docker.errors.ImageNotFound):
        for name in client.images.get(tag).tags:
            client.images.remove(name)


def test_images_that_only_a_bundle_has_are_pushed_and_the_chart_is_told(
    client: Any, registry: str, tag: str, tmp_path: Path
) -> None:
    save = subprocess.run(["docker", "save", tag], check=True, capture_output=True)
    (tmp_path / "images.tar.gz").write_bytes(save.stdout)
    client.images.remove(tag)
    manifest = {"format": 1, "images": {tag: {"content": hashlib.sha256().hexdigest()}}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bundle.py", "push", f"{registry}/team", tmp_path],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"global:\n  imageRegistry: {registry}/team" in done.stdout
    repository, version = tag.split(":")
    found = requests.get(f"http://{registry}/v2/team/{repository}/tags/list", timeout=10).json()
    assert found["tags"] == [version]
