"""Drivers and GPUs against torch's CUDA."""

from __future__ import annotations

import re

import pytest

from host import cuda
from lib import ROOT, versions

NEEDED = versions.minimums()
GPU = ("NVIDIA H100 80GB HBM3", "570.86.15", "9.0")


def test_the_cuda_of_the_minimums_is_that_of_the_lock_file():
    lock = (ROOT / "backend" / "torch.lock").read_text()
    (found,) = re.findall(r"^nvidia-cuda-runtime-cu12==(\d+\.\d+)\.", lock, re.M)
    assert NEEDED["cuda"] == found


@pytest.mark.parametrize("driver", ["525.60.13", "535.274.02", "550.54", "570.86.15"])
@pytest.mark.parametrize("capability", ["7.0", "7.5", "8.9", "9.0", "12.0"])
def test_what_torch_can_use_is_no_fault(driver, capability):
    assert cuda.faults([("gpu", driver, capability)], NEEDED) == []


@pytest.mark.parametrize("driver", ["390.157", "470.256.02", "525.60.12"])
def test_a_driver_that_is_too_old_is_named_once_with_the_cure(driver):
    ((what, found, needed, fix),) = cuda.faults([("gpu", driver, "8.0")] * 2, NEEDED)
    assert (what, found, needed) == ("GPU driver", driver, "525.60.13")
    assert "CUDA 12.8" in fix and "nvidia-driver" in fix


def test_a_card_that_torch_is_not_compiled_for_is_named():
    old = ("GeForce GTX 1080", "535.274.02", "6.1")
    ((what, found, needed, fix),) = cuda.faults([GPU, old], NEEDED)
    assert (what, found, needed) == ("GPU capability", "6.1", "7.0")
    assert "GeForce GTX 1080" in fix and "DEVICE=cpu" in fix


@pytest.mark.parametrize(
    "listing",
    ["", 'Field "compute_cap" is not a valid field to query.\n', "No devices were found\n", "a, b"],
)
def test_where_the_driver_does_not_tell_there_is_nothing_to_compare(listing):
    assert cuda.faults(cuda.parse(listing), NEEDED) == []


def test_what_the_driver_does_not_know_is_no_fault():
    listing = "NVIDIA A100, 550.54.15, [N/A]\nNVIDIA T4, [Unknown Error], 7.5\n"
    assert len(cuda.parse(listing)) == 2
    assert cuda.faults(cuda.parse(listing), NEEDED) == []


def test_cards_are_read_as_nvidia_smi_prints_them():
    assert cuda.parse(", ".join(GPU) + "\n") == [GPU]
