"""What a variable no longer asks for is taken away: GPU, addresses on the LAN, firewall,
backups."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.conftest import LABEL_STUDIO
from tests.host.machines import Machine, Outcome

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def off(site: Outcome, host: Machine, variables: dict[str, Any]) -> Machine:
    """The host after its owner has gone without GPU, addresses on the LAN, firewall and
    backups.

    The upgrade switches the last three on again.
    """
    without = {
        **variables, "nvidia_enabled": "false", "network_macvlan": False, "ls_yolo_firewall": False,
        "ls_yolo_backup_at": "",
    }  # fmt: skip
    outcome = host.playbook("site.yml", "--tags", "nvidia,network,ls_yolo", variables=without)
    assert outcome.code == 0, outcome.message()
    return host


def test_without_a_gpu_the_backend_is_on_the_cpu_again(off):
    assert off.container("backend", "sh", "-c", "echo /dev/nvidia*") == "/dev/nvidia*"
    assert not off.has("/etc/systemd/system/ls-yolo-cdi.service")


def test_what_is_switched_off_leaves_nothing_that_is_still_in_force(off, friend):
    assert friend.get(f"http://{LABEL_STUDIO}:8080/health") != "200"
    links = off.root("ip", "-brief", "link")
    assert "ls-yolo" not in links and "macvlan" not in links
    assert "ls-yolo" not in off.root("nft", "list", "ruleset")
    assert "LS-YOLO" not in off.root("iptables-save")
    assert "ls-yolo" not in off.root("systemctl", "list-timers", "--all")
    files = off.root("find", "/etc", "-name", "*ls-yolo*", "-o", "-path", "/etc/ls-yolo/*")
    assert set(files.splitlines()) == {
        "/etc/ls-yolo",
        "/etc/systemd/system/ls-yolo.service",
        "/etc/systemd/system/multi-user.target.wants/ls-yolo.service",
    }


def test_services_go_on_without_it(off):
    assert off.predicted() == off.tasks()


def test_a_network_made_by_hand_is_refused_before_anything_is_changed(off, variables):
    """The one that the owner has used so far, on the same interface."""
    off.root(
        "docker", "network", "create", "--driver", "macvlan", "--opt", "parent=eth1",
        "--subnet", "192.168.103.0/24", "vlan103",
    )  # fmt: skip
    try:
        with off.unchanged():
            outcome = off.playbook("site.yml", variables=variables)
            assert outcome.code == 2
    finally:
        off.root("docker", "network", "rm", "vlan103")
    assert "the Docker Engine's network vlan103 has eth1 already" in outcome.message()
