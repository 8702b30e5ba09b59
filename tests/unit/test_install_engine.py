"""Where a missing engine comes from, as a pure choice; and how it is started."""

from __future__ import annotations

import os

import pytest

import install_engine
from host import apt
from lib import versions
from lib.cli import UserError

ALL = ("engine", "client", "compose", "buildx")
TRIXIE = {
    "docker.io": "26.1.5+dfsg1-9+b5",
    "docker-cli": "26.1.5+dfsg1-9+b5",
    "docker-compose": "2.26.1-4",
    "docker-buildx": "0.13.1+ds1-3",
}
BOOKWORM = {"docker.io": "20.10.24+dfsg1-1+deb12u1+b6", "docker-compose": "1.29.2-3"}
NOBLE = {
    "docker.io": "28.2.2-0ubuntu1~24.04.1",
    "docker-compose-v2": "2.37.1+ds1-0ubuntu2~24.04.1",
    "docker-buildx": "0.21.3-0ubuntu1~24.04.1",
}


def plan(family, codename, candidates, lacks=ALL, docker=False):
    return install_engine.choose(
        install_engine.Facts(family, codename, lacks, docker, candidates), versions.minimums()
    )


def test_dockers_own_repository_comes_first():
    found = plan("debian", "trixie", TRIXIE, docker=True)
    assert found.source == "docker"
    assert found.packages == (
        "docker-ce", "containerd.io", "docker-ce-cli", "docker-compose-plugin",
        "docker-buildx-plugin",
    )  # fmt: skip


def test_then_the_distribution_where_it_is_new_enough():
    found = plan("debian", "trixie", TRIXIE)
    assert found.source == "distribution"
    assert found.packages == (
        "docker.io", "iptables", "docker-cli", "docker-compose", "docker-buildx",
    )  # fmt: skip


def test_ubuntu_names_them_otherwise():
    found = plan("ubuntu", "noble", NOBLE)
    assert found.packages == ("docker.io", "iptables", "docker-compose-v2", "docker-buildx")


def test_then_trixie_by_name_on_debian_12_alone():
    found = plan("debian", "bookworm", BOOKWORM)
    assert found.source == "trixie"
    assert "docker.io is 20.10.24" in found.why
    assert set(found.packages) == {
        "docker.io/trixie", "iptables", "docker-cli/trixie", "docker-compose/trixie",
        "docker-buildx/trixie", "containerd/trixie",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("there", "named"), [("1.6.20~ds1-1+deb12u1", True), ("1.7.24~ds1-6", False), ("2.1.9", False)]
)
def test_a_newer_containerd_of_the_host_is_not_replaced_by_an_older_one(there, named):
    """A cluster's node has one. apt would refuse the older one, and with it the engine."""
    found = plan("debian", "bookworm", {**BOOKWORM, "containerd": there})
    assert ("containerd/trixie" in found.packages) is named


@pytest.mark.parametrize(
    ("family", "codename", "candidates"),
    [
        ("debian", "bullseye", BOOKWORM),
        ("ubuntu", "jammy", {**NOBLE, "docker-compose-v2": "2.20.2"}),
        ("ubuntu", "noble", {}),
    ],
)
def test_elsewhere_nothing_is_forced(family, codename, candidates):
    with pytest.raises(UserError, match=r"download\.docker\.com.* does not answer"):
        plan(family, codename, candidates)


def test_only_what_is_missing_is_installed():
    assert plan("debian", "trixie", TRIXIE, ("compose",)).packages == ("docker-compose",)
    assert plan("debian", "bookworm", BOOKWORM, ("buildx",)).packages == ("docker-buildx/trixie",)
    assert plan("debian", "trixie", {}, ("compose",), docker=True).packages == (
        "docker-compose-plugin",
    )


def test_the_pin_lets_nothing_else_in():
    pin = install_engine.trixie_pin(("docker.io/trixie", "iptables", "docker-cli/trixie"))
    everything, ours = pin.split("\n\n")
    assert "Package: *\nPin: release n=trixie\nPin-Priority: 50" in everything
    assert "Package: docker.io docker-cli\n" in ours


def test_parse_policy():
    text = (
        "docker.io:\n  Installed: (none)\n  Candidate: 26.1.5+dfsg1-9+b5\n  Version table:\n"
        "     26.1.5+dfsg1-9+b5 500\n"
        "docker-ce:\n  Installed: (none)\n  Candidate: (none)\n"
    )
    assert apt.parse_policy(text) == {"docker.io": "26.1.5+dfsg1-9+b5"}


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        ("deb http://ftp.de.debian.org/debian bookworm main", "http://ftp.de.debian.org/debian"),
        ("deb [signed-by=/k] https://m.example/debian/ trixie main", "https://m.example/debian"),
        ("Types: deb\nURIs: http://deb.debian.org/debian\n", "http://deb.debian.org/debian"),
        ("# deb http://old/debian x main\nURIs: http://new/debian\n", "http://new/debian"),
        ("URIs: http://deb.debian.org/debian-security\n", ""),
        ("URIs: https://packages.example/apt\n", ""),
    ],
)
def test_the_mirror_that_the_host_uses_itself(sources, mirror):
    assert apt.mirror_of(sources) == mirror


def test_sources_name_their_key():
    assert "Signed-By: " in install_engine.trixie_source("http://m/debian")
    source = install_engine.docker_source("debian", "trixie", "amd64")
    assert "Signed-By: " in source
    assert "https://download.docker.com/linux/debian" in source


@pytest.mark.parametrize(
    ("systemd", "first", "script", "way"),
    [
        (True, "systemd", True, "systemd"),
        (False, "init", True, "service"),
        (False, "init", False, "none"),
        (False, "sleep", True, "none"),
        (False, "docker-init", True, "none"),
    ],
)
def test_how_a_service_is_started(systemd, first, script, way):
    assert install_engine.init_system(systemd, first, script) == way


def test_a_pid_file_that_a_crash_left_is_known(tmp_path):
    file = tmp_path / "docker.pid"
    assert not install_engine.stale_pid_file(file)  # none there
    file.write_text(str(os.getpid()))
    assert install_engine.stale_pid_file(file)  # this test is no dockerd
    proc = tmp_path / "proc" / "7"
    proc.mkdir(parents=True)
    (proc / "stat").write_text("7 (dockerd) S 1 7 7 0")
    file.write_text("7")
    assert not install_engine.stale_pid_file(file, tmp_path / "proc")
    (proc / "stat").write_text("7 (dockerd) Z 1 7 7 0")  # killed, and nobody has waited for it
    assert install_engine.stale_pid_file(file, tmp_path / "proc")
    file.write_text("")
    assert install_engine.stale_pid_file(file)


def test_waiting_ends():
    assert install_engine.wait_for(lambda: True, 0)
    assert not install_engine.wait_for(lambda: False, 0)
    assert not install_engine.wait_for(lambda: False, 60, alive=lambda: False)
