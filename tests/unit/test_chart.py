"""The chart itself: both Helms take it, and what it makes is what is kept under rendered/."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from cluster import tools
from dev import render_chart
from lib.cli import UserError
from rendering import containers, pod_spec

CI = sorted((render_chart.CHART / "ci").glob("*-values.yaml"))
HELMS = {name: str(tools.TOOLS / "bin" / name) for name in ("helm", "helm3")}


@pytest.mark.parametrize("helm", HELMS)
def test_helm_3_and_4_find_nothing_to_complain_about(helm):
    line = [HELMS[helm], "lint", "--strict", str(render_chart.CHART)]
    for values in [[], *(["-f", str(path)] for path in CI)]:
        done = subprocess.run([*line, *values], capture_output=True, text=True)
        assert done.returncode == 0, f"{values}: {done.stdout}{done.stderr}"
        assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_both_helms_make_the_same(path):
    four, three = (render_chart.render([path], helm=helm) for helm in HELMS.values())
    assert list(yaml.safe_load_all(four)) == list(yaml.safe_load_all(three))


def test_what_is_kept_is_what_the_chart_makes():
    assert render_chart.main(["--check"]) == 0


def test_check_finds_drift_names_the_fix_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(render_chart, "ROOT", tmp_path)
    monkeypatch.setattr(render_chart, "RENDERED", tmp_path / "rendered")
    monkeypatch.setattr(render_chart, "wanted", lambda: {tmp_path / "rendered" / "cpu.yaml": "new"})
    (tmp_path / "rendered").mkdir()
    (tmp_path / "rendered" / "cpu.yaml").write_text("old")
    (tmp_path / "rendered" / "gone.yaml").write_text("old")
    with pytest.raises(UserError, match=r"cpu\.yaml, gone\.yaml.*scripts/dev render_chart"):
        render_chart.main(["--check"])
    assert (tmp_path / "rendered" / "cpu.yaml").read_text() == "old"
    assert render_chart.main([]) == 0
    assert {path.name: path.read_text() for path in (tmp_path / "rendered").iterdir()} == {
        "cpu.yaml": "new"
    }
    assert render_chart.main(["--check"]) == 0


def test_no_secret_is_in_what_is_kept():
    for path in render_chart.RENDERED.iterdir():
        for found in yaml.safe_load_all(path.read_text()):
            if found and found["kind"] == "Secret":
                assert set(found["data"].values()) == {render_chart.STAND_IN}, path.name


def test_generated_secrets_are_long_and_new_each_time():
    line = [HELMS["helm"], "template", "a", str(render_chart.CHART), "-s", "templates/secret.yaml"]
    first, second = (
        yaml.safe_load(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    )
    for key, value in first["data"].items():
        assert len(value) >= 32, key
        assert second["data"][key] != value, key


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_secrets_are_in_no_argument_no_config_map_and_no_value(path):
    objects = [found for found in yaml.safe_load_all(render_chart.render([path])) if found]
    for found in objects:
        if found["kind"] == "ConfigMap":
            assert not re.search(r"(PASS|API_KEY|SECRET_KEY)\w*[\"']?\s*[:=]\s*[\"']?\w",
                                 yaml.safe_dump(found["data"]))  # fmt: skip
    for container in containers(objects):
        for variable in container.get("env", []):
            # What ends in _FILE is a path, of a mounted Secret.
            if re.search("(PASS|API_KEY|SECRET)(?!.*_FILE$)", variable["name"]):
                assert "secretKeyRef" in variable.get("valueFrom", {}), variable["name"]
        words = " ".join([*container.get("command", []), *container.get("args", [])])
        assert not re.search("PASS|API_KEY|SECRET", words)


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_only_the_test_has_a_token_of_the_cluster(path):
    objects = [found for found in yaml.safe_load_all(render_chart.render([path])) if found]
    for found in objects:
        if template := pod_spec(found):
            component = found["metadata"]["labels"]["app.kubernetes.io/component"]
            assert template["automountServiceAccountToken"] is (component == "test")
