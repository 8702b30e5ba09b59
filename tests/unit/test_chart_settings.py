"""The chart and the list of settings agree: names, defaults, who reads what.

test_compose.py says the same of compose.yaml.
"""

from __future__ import annotations

import re

import pytest
import yaml

from dev import chart_docs, render_chart
from ls_yolo.settings import BY_NAME, SETTINGS

KEYS = {"label-studio": "labelStudio", "backend": "backend", "setup": "setup"}
"""Where values.yaml has the settings of a service."""
SERVICES = tuple(KEYS)


@pytest.fixture(scope="module")
def values():
    return yaml.safe_load(chart_docs.VALUES.read_text())


@pytest.fixture(scope="module")
def containers():
    """Each container of the rendered defaults by its name, its environment as a mapping."""
    found = {}
    for document in yaml.safe_load_all(render_chart.render([])):
        spec = ((document or {}).get("spec") or {}).get("template", {}).get("spec", {})
        for container in spec.get("containers", []):
            found[container["name"]] = {row["name"]: row for row in container.get("env", [])}
    return found


@pytest.mark.parametrize(("service", "key"), KEYS.items())
def test_an_env_has_only_settings_that_the_service_reads(values, service, key):
    for name in values[key]["env"]:
        assert service in BY_NAME[name].readers, name
        assert not BY_NAME[name].secret, "passwords are in the Secret"
        assert not BY_NAME[name].fixed, "the chart sets it"


@pytest.mark.parametrize(("service", "key"), KEYS.items())
def test_the_chart_has_the_defaults_of_the_list(values, service, key):
    assert values[key]["env"] == {name: BY_NAME[name].default for name in values[key]["env"]}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_its_settings_and_no_others(values, containers, service):
    wanted = {setting.name for setting in SETTINGS if service in setting.readers}
    given = {name for name in containers[service] if name in BY_NAME}
    assert given | set(values[KEYS[service]]["env"]) == wanted


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_come_from_a_secret(containers, service):
    for name, row in containers[service].items():
        if name in BY_NAME and BY_NAME[name].secret:
            assert set(row) == {"name", "valueFrom"}
            assert "secretKeyRef" in row["valueFrom"]


def test_an_unknown_name_is_refused_by_the_schema():
    schema = chart_docs.schema(chart_docs.read(chart_docs.VALUES.read_text()))
    for key in KEYS.values():
        env = schema["properties"][key]["properties"]["env"]
        assert env["additionalProperties"] is False


def test_a_value_set_for_a_setting_reaches_its_container(tmp_path):
    """As it is written: a whole number stays one, and is not 1e+06."""
    file = tmp_path / "values.yaml"
    file.write_text("backend: {env: {MODEL_IDLE_SECONDS: 600000, MODEL_SCORE_THRESHOLD: 0.35}}")
    text = render_chart.render([file])
    for name, value in (("MODEL_IDLE_SECONDS", "600000"), ("MODEL_SCORE_THRESHOLD", "0.35")):
        assert re.search(rf'name: {name}\n\s+value: "{re.escape(value)}"', text)
