"""What is found of the Docker Engine, and what is said of it."""

from __future__ import annotations

import pytest

from host import docker_engine
from host.checks import INSTALLABLE, OK, STOP
from host.docker_engine import Engine
from lib import versions

FINE = Engine("answers", "26.1.5+dfsg1", "/usr/bin/docker", "2.26.1", "0.13.1", "/var/lib/docker")
NONE = Engine("missing")


def engine_states(engine, installable=True):
    checks = docker_engine.check_engine(engine, versions.minimums(), installable, "ann")
    return {check.name: check for check in checks}


def test_an_engine_that_is_fine():
    assert {check.state for check in engine_states(FINE).values()} == {OK}


def test_what_is_missing_can_be_installed_on_debian_and_is_a_persons_matter_elsewhere():
    assert {check.state for check in engine_states(NONE).values()} == {INSTALLABLE}
    by_hand = engine_states(NONE, installable=False)
    assert {check.state for check in by_hand.values()} == {STOP}
    assert docker_engine.DOCS in by_hand["Docker Engine"].fix


def test_an_engine_that_may_not_be_used_has_its_own_cure():
    denied = engine_states(Engine("denied", "26.1.5", "/usr/bin/docker", "2.26.1", "0.13.1"))
    assert denied["Docker Engine"].state == STOP
    assert "usermod -aG docker ann" in denied["Docker Engine"].fix


def test_an_engine_that_does_not_run_is_started():
    stopped = engine_states(Engine("stopped", "", "/usr/bin/docker", "2.26.1", "0.13.1"))
    assert stopped["Docker Engine"].state == INSTALLABLE
    assert "started" in stopped["Docker Engine"].fix


def test_an_old_engine_is_left_alone():
    old = Engine("answers", "20.10.24+dfsg1", "/usr/bin/docker", "2.26.1", "0.13.1")
    check = engine_states(old)["Docker Engine"]
    assert (check.state, check.found, check.needed) == (STOP, "20.10.24+dfsg1", "26.1")
    assert old.too_old(versions.minimums()) == ("engine",)


def test_an_engine_elsewhere_is_not_replaced_by_one_here():
    there = Engine("unreachable", detail="tcp://gpu:2375", client="/usr/bin/docker")
    assert "DOCKER_HOST=tcp://gpu:2375" in engine_states(there)["Docker Engine"].found
    assert engine_states(there)["Docker Engine"].state == STOP


def test_only_the_plugins_are_missing():
    states = engine_states(Engine("answers", "26.1.5", "/usr/bin/docker"))
    assert states["Docker Engine"].state == OK
    assert states["compose"].state == states["buildx"].state == INSTALLABLE


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker Compose version v2.40.3", "2.40.3"),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", "0.13.1"),
        (None, ""),
        ("no number", ""),
    ],
)
def test_plain_version(text, version):
    assert docker_engine.plain_version(text) == version


def test_the_folder_of_an_engine_that_does_not_run(tmp_path):
    config = tmp_path / "daemon.json"
    assert docker_engine.data_root_of(config) == "/var/lib/docker"
    config.write_text('{"data-root": "/big"}')
    assert docker_engine.data_root_of(config) == "/big"
    config.write_text("{broken")
    assert docker_engine.data_root_of(config) == "/var/lib/docker"


def test_a_socket_that_nobody_serves(tmp_path):
    assert docker_engine.ask_socket(str(tmp_path / "none.sock")) == ("stopped", "")
