"""What can be known of the roles without a host."""

from __future__ import annotations

import re

import pytest
import yaml

from lib import ROOT
from tests.host.conftest import need_machines
from tests.host.machines import TOOLS

ROLES = ROOT / "ansible" / "roles"
NAMES = sorted(role.name for role in ROLES.iterdir())
TYPES = {
    "str": str,
    "path": str,
    "bool": bool,
    "int": int,
    "float": float,
    "list": list,
    "dict": dict,
}


def specs(role):
    text = (ROLES / role / "meta" / "argument_specs.yml").read_text()
    return yaml.safe_load(text)["argument_specs"]["main"]["options"]


def defaults(role):
    file = ROLES / role / "defaults" / "main.yml"
    return (yaml.safe_load(file.read_text()) or {}) if file.exists() else {}


def test_the_roles():
    assert NAMES == ["docker", "ls_yolo", "network", "nvidia", "preflight"]


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_of_a_role_is_described_with_its_type_and_default(role):
    found = defaults(role)
    for name, spec in specs(role).items():
        assert set(spec) >= {"type", "description"}, name
        assert spec["description"], name
        assert name.startswith(f"{role}_"), name
    described = {name: spec.get("default") for name, spec in specs(role).items()}
    assert described == found


@pytest.mark.parametrize("role", NAMES)
def test_a_default_is_of_the_type_that_is_described(role):
    for name, spec in specs(role).items():
        value = spec.get("default")
        if isinstance(value, str) and "{{" in value:
            continue  # of what type is known on a host alone
        assert isinstance(value, TYPES[spec["type"]]), name
        if "choices" in spec:
            assert value in spec["choices"], name


def test_the_sample_inventory_names_variables_that_there_are():
    text = (ROOT / "ansible" / "inventory" / "hosts.yml").read_text()
    known = {name for role in NAMES for name in specs(role)}
    prefix = "|".join(NAMES)
    named = set(re.findall(rf"^\s+(?:# )?((?:{prefix})_\w+):", text, re.MULTILINE))
    assert named - {"ls_yolo"}
    assert named <= known, named - known


def test_the_suite_of_hosts_names_every_tool_that_is_missing_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as told:
        need_machines()
    assert "found no docker, git, ip, ssh, ssh-keygen, tar." in str(told.value)
    assert "apt-get install docker.io git iproute2 openssh-client tar" in str(told.value)


def test_the_suite_of_hosts_calls_no_other_tool():
    text = "".join(file.read_text() for file in (ROOT / "tests" / "host").glob("*.py"))
    called = set(re.findall(r"(?<!\.)\brun\(\s*\"([a-z-]+)\"", text))
    assert {"ip", "ssh-keygen", "tar"} <= called <= set(TOOLS)
