"""Addresses on the LAN: who reaches what, from this host and from another machine."""

from __future__ import annotations

import pytest

from tests.host.conftest import BACKEND, FRIEND, LABEL_STUDIO, SHIM, STRANGER

pytestmark = pytest.mark.host

URLS = [f"http://{LABEL_STUDIO}:8080/health", f"http://{BACKEND}:9090/health"]


@pytest.mark.parametrize("url", URLS)
def test_another_machine_opens_both_services(site, friend, url):
    assert friend.get(url) == "200"


@pytest.mark.parametrize("url", URLS)
def test_a_machine_that_is_not_named_reaches_neither(site, stranger, url):
    assert stranger.get(url, STRANGER) == "timeout"


@pytest.mark.parametrize("url", URLS)
def test_the_host_reaches_both_by_its_shim(site, host, url):
    address = LABEL_STUDIO if LABEL_STUDIO in url else BACKEND
    assert f"dev ls-yolo-shim src {SHIM}" in host.root("ip", "route", "get", address)
    assert host.get(url) == "200"


def test_a_port_that_is_no_service_s_is_closed(site, friend):
    assert friend.get(f"http://{LABEL_STUDIO}:9090/") == "timeout"


def test_the_backend_predicts_for_nobody_without_its_password(site, friend):
    assert friend.get(f"http://{BACKEND}:9090/versions") == "401"


def test_a_service_reaches_a_machine_on_the_lan(site, host, friend):
    """As Label Studio does for images that lie on a server there."""
    friend.serve(8000)
    assert host.inside("label-studio", f"http://{FRIEND}:8000/") == "200"


def test_the_bridge_owns_the_way_out(site, host):
    """So that the services find each other and the internet with the LAN's cable out."""
    gateway = host.root(
        "docker", "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}",
        "ls-yolo_default",
    )  # fmt: skip
    for service in ("label-studio", "backend"):
        assert host.default_gateway(service) == gateway


def test_no_service_has_an_ipv6_address_for_which_there_are_no_rules(site, host):
    for service in ("label-studio", "backend"):
        lines = host.container(service, "cat", "/proc/net/if_inet6").splitlines()
        assert {line.split()[-1] for line in lines} <= {"lo"}


def test_sources_that_are_none_are_refused_and_the_rules_stay(site, host, variables):
    wrong = {**variables, "ls_yolo_backend_from": ["192.168.103.0/33"]}
    with host.unchanged():
        outcome = host.playbook("site.yml", "--tags", "ls_yolo", variables=wrong)
        assert outcome.code == 2
    assert "found 192.168.103.0/33, expected IPv4 addresses and networks" in outcome.message()


def test_a_shim_of_another_name_takes_the_place_of_the_old_one(site, host, variables):
    # As where NetworkManager is installed.
    host.root("mkdir", "-p", "/etc/NetworkManager/conf.d")
    renamed = {**variables, "network_shim_interface": "ls-yolo-host"}
    outcome = host.playbook("site.yml", "--tags", "network", variables=renamed)
    assert outcome.code == 0, outcome.message()
    assert not host.has("/sys/class/net/ls-yolo-shim")
    told = host.root("cat", "/etc/NetworkManager/conf.d/ls-yolo.conf")
    assert told.endswith("[keyfile]\nunmanaged-devices+=interface-name:ls-yolo-host")
    assert "dev ls-yolo-host" in host.root("ip", "route", "get", LABEL_STUDIO)
    assert host.get(URLS[0]) == "200"


def test_the_rules_stand_while_the_engine_restarts(site, host):
    asked = ("systemctl", "show", "--property=ActiveEnterTimestampMonotonic", "ls-yolo-firewall")
    before = host.root(*asked)
    host.root("systemctl", "restart", "docker")
    assert host.root(*asked) == before
    assert "-j LS-YOLO" in host.root("iptables", "--list-rules", "DOCKER-USER")
    host.root("nft", "list", "table", "netdev", "ls-yolo")
    host.wait_until_healthy()


def test_everything_comes_back_by_itself_after_a_reboot(host, site, friend, stranger):
    before = host.predicted()
    host.reboot()
    host.wait_until_healthy()
    assert host.predicted() == before == host.tasks()
    for address, port in ((LABEL_STUDIO, 8080), (BACKEND, 9090)):
        url = f"http://{address}:{port}/health"
        assert friend.get(url) == host.get(url) == "200"
        assert stranger.get(url, STRANGER) == "timeout"
    for unit in ("docker", "ls-yolo", "ls-yolo-shim", "ls-yolo-firewall"):
        assert host.root("systemctl", "is-active", unit) == "active"
