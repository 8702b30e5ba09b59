"""One list of settings: compose/ and .env say what settings.py says, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import compose
import env
from host import gpu
from lib import ROOT, docker, settings, versions
from ls_yolo.settings import BY_NAME, SETTINGS

TEXTS = {path.name: path.read_text() for path in (ROOT / "compose").glob("*.yaml")}
TEXT = "".join(TEXTS.values())
FILES: dict[str, dict[str, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
SERVICES: dict[str, dict[str, Any]] = FILES["compose.yaml"]["services"]
POSTGRES = FILES["postgres.yaml"]["services"]["postgres"]
# What is no setting: names that no proxy stands before, and what scripts/compose.py works out.
DIRECT = {"NO_PROXY", "no_proxy"}
OURS = {"LS_YOLO_VERSION", "MODELS_FINGERPRINT", "PROJECT_SECRETS"}
REFERENCE = re.compile(r"\$\{([A-Z_]+)(?:(:?[-?])([^}]*))?\}")


@pytest.mark.parametrize("service", ["label-studio", "backend", "setup"])
def test_a_service_gets_its_settings_and_no_others(service: str) -> None:
    wanted = {setting.name for setting in SETTINGS if service in setting.readers}
    assert set(SERVICES[service]["environment"]) - OURS == wanted | DIRECT


@pytest.mark.parametrize("service", ["label-studio", "backend", "setup"])
def test_a_setting_is_passed_on_under_its_own_name_or_fixed(service: str) -> None:
    for name in set(SERVICES[service]["environment"]) - DIRECT - OURS:
        value = SERVICES[service]["environment"][name]
        found = REFERENCE.match(str(value))
        if name == "LABEL_STUDIO_PUBLIC_URLS":  # made of several
            used = {name for name, _, _ in REFERENCE.findall(str(value))}
            assert used == {"LABEL_STUDIO_HOST", "LABEL_STUDIO_PORT", "BIND_ADDRESS"}
        elif BY_NAME[name].fixed:
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
    for_scripts = {"GPU", *compose.OVERLAYS, "UPDATE_CHECK"}
    assert {s.name for s in SETTINGS if "host" in s.readers} <= referred | for_scripts
    assert not referred & for_scripts


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
    for name, service in {**SERVICES, "postgres": POSTGRES}.items():
        assert service["read_only"], name
        # PostgreSQL ends its own children.
        assert service.get("init") or name == "postgres", name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["logging"]["options"]["max-size"], name
        assert "mem_limit" in service, name
        assert "container_name" not in service and "privileged" not in service, name


def test_an_overlay_changes_what_it_is_for_and_nothing_else() -> None:
    touched = {
        (file, service): set(keys)
        for file, content in FILES.items()
        if file != "compose.yaml"
        for service, keys in content["services"].items()
        if service != "postgres"
    }
    assert touched == {
        ("gpu.yaml", "backend"): {"shm_size", "deploy"},
        ("gpu-runtime.yaml", "backend"): {"shm_size", "runtime", "environment"},
        ("macvlan.yaml", "label-studio"): {"networks"},
        ("macvlan.yaml", "backend"): {"networks", "environment"},
        ("postgres.yaml", "label-studio"): {"depends_on", "environment", "healthcheck"},
    }


CDI = gpu.Host(("A100",), ("0",), cdi=True, runtime=True)
OLD = gpu.Host(("A100",), (), cdi=False, runtime=True)


@pytest.mark.parametrize(
    ("chosen", "host", "files"),
    [
        ({}, CDI, []),
        ({"GPU": "0", "MACVLAN": "false", "POSTGRES": "no"}, CDI, []),
        ({"GPU": "1"}, CDI, ["gpu.yaml"]),
        ({"GPU": "1"}, OLD, ["gpu-runtime.yaml"]),
        ({"GPU": "1"}, gpu.Host(), ["gpu.yaml"]),
        ({"MACVLAN": "1"}, CDI, ["macvlan.yaml"]),
        ({"POSTGRES": "1"}, CDI, ["postgres.yaml"]),
        (
            {"GPU": "on", "MACVLAN": "yes", "POSTGRES": "true"},
            OLD,
            ["gpu-runtime.yaml", "macvlan.yaml", "postgres.yaml"],
        ),
    ],
)
def test_the_settings_choose_the_files(
    chosen: dict[str, str], host: gpu.Host, files: list[str]
) -> None:
    values = settings.values(chosen, Path("/dev/null"))
    assert compose.files(values, host) == ["compose.yaml", *files]
    assert set(files) <= set(FILES)


def test_the_image_of_postgres_is_the_one_that_is_built() -> None:
    assert POSTGRES["image"] == versions.POSTGRES_IMAGE


def test_what_is_removed_is_found_by_name_not_by_the_files_of_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(docker, "client", lambda: "docker")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "mine")
    assert compose.down("--volumes") == [
        "docker", "compose", "--project-name", "mine", "down", "--remove-orphans", "--volumes",
    ]  # fmt: skip


def test_the_bridge_comes_before_the_lan_by_name() -> None:
    """The engine gives the first by name the default route, and answers names from it."""
    name = FILES["macvlan.yaml"]["networks"]["lan"]["name"]
    project, _, suffix = name.rpartition("_")
    assert project == FILES["compose.yaml"]["name"]
    assert suffix > "default"
    services = FILES["macvlan.yaml"]["services"].values()
    assert all(set(service["networks"]) == {"default", "lan"} for service in services)
