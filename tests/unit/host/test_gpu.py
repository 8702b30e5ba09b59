"""Which way a GPU takes into the backend, and what is said where there is none."""

from __future__ import annotations

import json

import pytest

from host import gpu
from host.checks import OK, STOP
from lib import net

# As nvidia-ctk writes it, shortened: the name after what it is the name of.
GENERATED = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args:
    - nvidia-cdi-hook
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      name: not-a-device
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: GPU-3d5e1c1a-0000-4000-8000-000000000000
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: all
kind: nvidia.com/gpu
"""
BY_HAND = """\
cdiVersion: "0.6.0"
kind: "nvidia.com/gpu"
devices:
  # The first GPU.
  - name: '0'
    containerEdits:
      env:
        - name=1
  - name: "1"
    containerEdits: {}
"""


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (GENERATED, ["0", "GPU-3d5e1c1a-0000-4000-8000-000000000000", "all"]),
        (BY_HAND, ["0", "1"]),
        (json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "0"}]}), ["0"]),
        (json.dumps({"kind": "nvidia.com/gpu", "devices": [{"nam": "0"}]}), []),
        (GENERATED.replace("nvidia.com/gpu", "vendor.com/net"), []),
        (json.dumps({"kind": "vendor.com/net", "devices": [{"name": "0"}]}), []),
        ('{"kind": ', []),
        ("", []),
    ],
)
def test_the_devices_of_a_specification(text, names):
    assert gpu.names_in(text) == names


def test_all_specifications_count_and_each_name_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "nvidia.yaml").write_text(GENERATED)
    (tmp_path / "a" / "notes.txt").write_text(BY_HAND)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "more.yaml").write_text(BY_HAND)
    (tmp_path / "b" / "broken.yaml").write_bytes(b"\xff")
    found = gpu.devices([tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    assert found == ["0", "GPU-3d5e1c1a-0000-4000-8000-000000000000", "all", "1"]


def check(host, device="0", torch_index=""):
    return gpu.check(host, device, torch_index)


def test_a_card_with_a_specification_that_the_engine_reads():
    host = gpu.Host(("A100",), ("0", "1"), cdi=True, runtime=False)
    assert gpu.overlay(host) == gpu.CDI
    assert (check(host).state, check(host).found) == (OK, "nvidia.com/gpu=0 by CDI")


def test_an_older_host_takes_the_runtime():
    for host in (
        gpu.Host(("A100",), (), cdi=True, runtime=True),
        gpu.Host(("A100",), ("0",), cdi=False, runtime=True),
    ):
        assert gpu.overlay(host) == gpu.RUNTIME
        assert check(host, "3").state == OK


@pytest.mark.parametrize(
    ("host", "device", "found", "fix"),
    [
        (gpu.Host(cdi=True, runtime=False), "0", "no NVIDIA driver", "nvidia-smi lists the GPU"),
        (gpu.Host(), "0", "no NVIDIA driver", "GPU=0"),
        (
            gpu.Host(("A100",), (), True, False), "0", "no CDI specification",
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        ),
        (
            gpu.Host(("A100",), ("0",), False, False), "0", "does not read CDI",
            '"features": {"cdi": true} into /etc/docker/daemon.json',
        ),
        (gpu.Host(("A100",), ("0", "1"), True, False), "2", "no 2 among 0, 1", "GPU_DEVICE"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_cure(host, device, found, fix):
    told = check(host, device)
    assert told.state == STOP
    assert found in told.found
    assert fix in told.fix


def test_torch_without_cuda_is_refused_before_anything_is_built():
    host = gpu.Host(("A100",), ("0",), True, False)
    told = check(host, torch_index=net.CPU_TORCH_INDEX)
    assert told.state == STOP
    assert "TORCH_INDEX" in told.fix


def test_an_engine_that_is_going_to_be_installed_is_not_asked():
    host = gpu.Host(("A100",), ("0",))
    assert (host.cdi, check(host).state) == (None, OK)


def test_a_card_that_nobody_asked_for_is_mentioned():
    values = {"GPU": "", "GPU_DEVICE": "0", "TORCH_INDEX": ""}
    (none,) = gpu.checks(values, [], answers=False)
    (some,) = gpu.checks(values, ["A100"], answers=False)
    assert (none.state, none.fix) == (OK, "")
    assert (some.state, some.found) == (OK, "A100")
    assert "make up GPU=1" in some.fix
