"""One list of settings: compose.yaml and .env say what settings.py says, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import env
from ls_yolo.settings import BY_NAME, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "compose" / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
# What is no setting: names that no proxy stands before, and what scripts/compose.py works out.
DIRECT = {"NO_PROXY", "no_proxy"}
OURS = {"LS_YOLO_VERSION", "MODELS_FINGERPRINT"}
REFERENCE = re.compile(r"\$\{([A-Z_]+)(?:(:?[-?])([^}]*))?\}")


@pytest.mark.parametrize("service", ["label-studio", "backend", "setup"])
def test_a_service_gets_its_settings_and_no_others(service: str) -> None:
    wanted = {setting.name for setting in SETTINGS if service in setting.readers}
    assert set(SERVICES[service]["environment"]) == wanted | DIRECT


@pytest.mark.parametrize("service", ["label-studio", "backend", "setup"])
def test_a_setting_is_passed_on_under_its_own_name_or_fixed(service: str) -> None:
    for name in set(SERVICES[service]["environment"]) - DIRECT:
        value = SERVICES[service]["environment"][name]
        found = REFERENCE.match(str(value))
        if BY_NAME[name].fixed:
            assert found is None, name
            assert BY_NAME[name].parse(str(value)) == BY_NAME[name].parse(BY_NAME[name].default)
        else:
            assert found is not None and found[1] == name, name


def test_compose_asks_for_settings_only_and_has_their_defaults() -> None:
    for name, kind, text in REFERENCE.findall(TEXT):
        if name in OURS:
            continue
        assert not BY_NAME[name].fixed, name
        if kind == ":-" and text:
            assert text == BY_NAME[name].default, name


def test_what_must_be_set_is_asked_for_with_a_message() -> None:
    asked = {name for name, kind, text in REFERENCE.findall(TEXT) if "?" in kind and text}
    secret = {s.name for s in SETTINGS if s.secret}
    assert secret <= asked


def test_every_setting_of_the_host_takes_effect_in_compose() -> None:
    referred = {name for name, _, _ in REFERENCE.findall(TEXT)}
    assert {s.name for s in SETTINGS if "host" in s.readers} <= referred


def test_env_documents_each_setting_that_a_person_can_change(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    env.make(path, {}, lambda: "")
    lines = path.read_text().splitlines()
    names = [line.partition("=")[0] for line in lines if re.match(r"[A-Z_]+=", line)]
    assert sorted(names) == sorted(s.name for s in SETTINGS if not s.fixed)
    for name in names:
        above = lines[next(i for i, line in enumerate(lines) if line.startswith(f"{name}=")) - 1]
        assert above.startswith("# "), name


def test_no_service_is_privileged_by_the_file_itself() -> None:
    for name, service in SERVICES.items():
        assert service["read_only"] and service["init"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name
        assert "mem_limit" in service, name
        assert "container_name" not in service and "privileged" not in service, name
