"""Trackers of ultralytics, in the backend's image, without a network: objects keep their ids, and
what is followed is what ultralytics follows alone. What happens inside is in tracking_inside.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest

from conftest import IMAGES, fetch_demo

pytestmark = pytest.mark.docker
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What tracking_inside.py found."""
    try:
        client = docker.from_env()
        client.images.get(IMAGES["backend"])
    except docker.errors.ImageNotFound:
        pytest.skip(f"{IMAGES['backend']} is not built; `make images` builds it")
    except docker.errors.DockerException as error:
        pytest.skip(f"no Docker Engine answers ({error}); `make test-integration` starts one")
    folder = tmp_path_factory.mktemp("tracking")
    (folder / "datasets").mkdir()
    fetch_demo(folder)
    for path in [folder, *folder.parents[:2], *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    output = client.containers.run(
        IMAGES["backend"], ["python", "/tests/tracking_inside.py"],
        remove=True, network_mode="none", read_only=True, mem_limit="4g",
        tmpfs={"/tmp": "mode=1777,size=1g"},
        volumes={
            str(folder / "models"): {"bind": "/models", "mode": "ro"},
            str(folder / "datasets" / "demo"): {"bind": "/images", "mode": "ro"},
            str(HERE): {"bind": "/tests", "mode": "ro"},
        },
    )  # fmt: skip
    line = next(line for line in output.decode().splitlines() if line.startswith("ANSWER "))
    return json.loads(line.removeprefix("ANSWER "))


@pytest.mark.parametrize("kind", ["botsort", "bytetrack", "deepocsort", "fasttrack", "ocsort"])
def test_objects_that_pass_each_other_keep_their_ids(inside: Any, kind: str) -> None:
    frames = inside["crossing"][kind]
    assert [1, 2] in frames[:4]  # a tracker may wait until it is sure
    assert frames[4:] == [[1, 2]] * len(frames[4:])


@pytest.mark.parametrize("kind", ["botsort", "bytetrack"])
def test_what_is_followed_is_what_ultralytics_follows(inside: Any, kind: str) -> None:
    found, expected = (
        {(frame, number): box for frame, number, box in inside[who][kind]}
        for who in ("here", "direct")
    )
    assert len({number for _, number in expected}) >= 4  # the clip has as many persons, and a bus
    assert found.keys() == expected.keys()
    for at, box in expected.items():
        assert np.abs(np.subtract(found[at], box)).max() < 0.1
