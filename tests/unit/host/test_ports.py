"""Who has a port."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from host import ports
from host.checks import STOP
from host.docker_engine import Engine
from host.ports import PortUse, check_ports

# Ports

LISTING = (
    "ls-yolo-label-studio-1\t127.0.0.1:8080->8080/tcp\n"
    "range\t0.0.0.0:9000-9010->9000-9010/tcp, [::]:9000-9010->9000-9010/tcp\n"
    "inside\t5432/tcp\nnothing\t\n"
)


@pytest.mark.parametrize(
    ("port", "name"),
    [(8080, "ls-yolo-label-studio-1"), (9005, "range"), (9011, ""), (5432, ""), (808, "")],
)
def test_which_container_publishes_a_port(port, name):
    assert ports.published(LISTING, port) == name


def test_a_port_that_is_taken_says_by_whom(taken):
    use = ports.look_at_port("127.0.0.1", taken, "", "")
    assert use.state == "taken"
    assert f"(process {os.getpid()})" in use.who
    assert ports.look_at_port("0.0.0.0", taken, "", "").state == "taken"


def test_a_port_that_is_free(taken):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    assert ports.look_at_port("127.0.0.1", port, "", "") == PortUse("free")


def test_our_own_containers_may_hold_their_ports(taken):
    ours = f"ls-yolo-backend-1\t127.0.0.1:{taken}->9090/tcp\n"
    assert ports.look_at_port("127.0.0.1", taken, ours, ours) == PortUse("ours")
    other = f"web\t127.0.0.1:{taken}->80/tcp\n"
    assert ports.look_at_port("127.0.0.1", taken, "", other) == PortUse("taken", "container web")


def test_a_low_port_is_the_engines_matter(monkeypatch):
    denied = OSError(errno.EACCES, "Permission denied")
    monkeypatch.setattr(ports, "try_bind", lambda _, port: denied if port else None)
    assert ports.look_at_port("127.0.0.1", 80, "", "") == PortUse("free")


def test_an_address_that_this_host_has_not():
    use = ports.look_at_port("192.0.2.1", 8080, "", "")
    assert use.state == "bad"
    check = ports.check_port("LABEL_STUDIO_PORT", "192.0.2.1", 8080, use, 8081)
    assert check.state == STOP
    assert "BIND_ADDRESS" in check.fix


def test_our_own_container_elsewhere_is_no_pass_for_such_an_address():
    ours = "ls-yolo-label-studio-1\t127.0.0.1:8080->8080/tcp\n"
    assert ports.look_at_port("192.0.2.1", 8080, ours, ours).state == "bad"


def test_a_kind_of_address_that_this_host_lacks(monkeypatch):
    def no_such_kind(*_):
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", no_such_kind)
    use = ports.look_at_port("::1", 8080, "", "")
    assert use == PortUse("bad", "Address family not supported by protocol")


def test_the_cure_names_a_port_that_works():
    check = ports.check_port("BACKEND_PORT", "127.0.0.1", 9090, PortUse("taken", "nginx"), 9091)
    assert check.found == "taken by nginx"
    assert "make up BACKEND_PORT=9091" in check.fix


@pytest.mark.parametrize("text", ["0", "65536", "abc", "-1", "8080x", "\uff18"])
def test_a_port_is_a_number(text):
    assert ports.parse_port(text) == 0
    assert ports.parse_port(" 8080 ") == 8080


def test_one_port_cannot_serve_both(taken):
    values = {
        "BIND_ADDRESS": "127.0.0.1",
        "COMPOSE_PROJECT_NAME": "ls-yolo",
        "LABEL_STUDIO_PORT": "8080",
        "BACKEND_PORT": "8080",
    }
    assert check_ports(values, Engine("missing"))[1].state == STOP
