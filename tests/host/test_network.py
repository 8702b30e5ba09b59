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
