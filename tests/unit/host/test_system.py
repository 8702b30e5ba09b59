"""System, Python, disk and memory."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

import preflight
from host import system
from host.checks import OK, STOP, WARNING
from lib import net, versions

# System


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_CODENAME="bookworm"', "debian"),
        ("ID=ubuntu\nID_LIKE=debian", "ubuntu"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"', "ubuntu"),
        ("ID=raspbian\nID_LIKE=debian", "debian"),
        ('ID="fedora"', ""),
        ("", ""),
    ],
)
def test_family(text, family):
    assert system.family(system.parse_os_release(text)) == family


def test_system():
    debian = {"ID": "debian", "PRETTY_NAME": "Debian 13"}
    assert system.check_os(debian, "x86_64").state == OK
    assert system.check_os({"ID": "fedora"}, "x86_64").state == WARNING
    assert system.check_os(debian, "aarch64").state == STOP
    assert "lock files" in system.check_os(debian, "aarch64").fix


def test_python():
    assert system.check_python((3, 11, 2), "3.11").state == OK
    assert system.check_python((3, 9, 2), "3.11").state == STOP


# Disk and memory

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Sets how many GB are free everywhere."""

    def set_free(gb):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, int(gb * 10**9)))

    return set_free


def needs(built=(), cpu=False, install=False):
    return system.disk_needs(
        versions.minimums(), Path("/var/lib/docker"), built, cpu, install, Path("/")
    )


def test_less_disk_is_needed_once_the_images_are_there():
    total = {
        "first": sum(need.gb for need in needs()),
        "cpu": sum(need.gb for need in needs(cpu=True)),
        "one": sum(need.gb for need in needs(["label-studio"])),
        "both": sum(need.gb for need in needs(["label-studio", "backend"])),
    }
    assert total["both"] < 2 < total["cpu"] < total["one"] < total["first"]


@pytest.mark.parametrize(
    ("index", "written", "gpus", "answers", "expected"),
    [
        ("", {}, [], True, True),  # the first run: as .env is going to say
        ("", {}, [], False, False),
        ("", {}, ["A100"], True, False),
        ("", {"TORCH_INDEX": ""}, [], True, False),  # chosen so
        (net.CPU_TORCH_INDEX + "/", {}, ["A100"], False, True),
    ],
)
def test_disk_is_counted_for_the_torch_that_will_be_used(
    monkeypatch, index, written, gpus, answers, expected
):
    preflight.env.cpu_index_answers.cache_clear()
    monkeypatch.setattr(net, "answers", lambda *_, **__: answers)
    assert preflight.without_cuda({"TORCH_INDEX": index}, written, gpus) is expected


def test_an_engine_to_be_installed_needs_disk_too():
    assert sum(need.gb for need in needs(install=True)) > sum(need.gb for need in needs())


def test_two_gb_left_are_one_clear_message(free, tmp_path):
    free(2)
    (check,) = system.check_disk([system.Need(tmp_path, 5, "a"), system.Need(tmp_path, 1, "b")])
    assert check.state == STOP
    assert check.found == f"2.0 GB free at {tmp_path}"
    assert check.needed == "6 GB: 5 a, 1 b"
    assert "Free 4.0 GB" in check.fix


def test_what_is_not_there_yet_counts_where_it_will_be(free, tmp_path):
    free(10)
    (check,) = system.check_disk([system.Need(tmp_path / "not" / "yet", 5, "a")])
    assert check.state == OK


def test_without_a_gpu_the_smaller_torch_is_proposed(free, tmp_path):
    free(2)
    need = system.Need(tmp_path, 15, "the backend's image")
    assert net.CPU_TORCH_INDEX in system.check_disk([need], 9)[0].fix
    assert net.CPU_TORCH_INDEX not in system.check_disk([need])[0].fix


def test_memory():
    assert system.memory_gb("MemTotal:  4000000 kB\nMemFree: 1 kB\n") == pytest.approx(4.096)
    assert system.check_memory(3.9, 4).state == OK  # sold as 4 GB
    assert system.check_memory(2.0, 4).state == WARNING
