"""What the chart makes, against the schemas of Kubernetes and two scanners; without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from dev import render_chart, testtools
from lib import versions

BIN = testtools.SCANNERS / "bin"
FINDINGS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "findings.yaml").read_text())
# What the schemas of Kubernetes cannot know; tests/kubernetes/test_crds.py has their own.
FOREIGN = {
    "HTTPRoute", "NetworkAttachmentDefinition", "PrometheusRule", "ScaledObject", "ServiceMonitor",
}  # fmt: skip
OLDEST = yaml.safe_load((render_chart.CHART / "Chart.yaml").read_text())["kubeVersion"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder with a file for each ci/*-values.yaml and each file of tests/kubernetes/values."""
    folder = tmp_path_factory.mktemp("rendered")
    ours = (path for path in (Path(__file__).parent / "values").iterdir())
    for values in [*(render_chart.CHART / "ci").iterdir(), *ours]:
        (folder / f"{values.stem}.yaml").write_text(render_chart.render([values]))
    return folder


def run(*words, **more):
    return subprocess.run(
        [str(BIN / words[0]), *map(str, words[1:])], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}, **more,
    )  # fmt: skip


@pytest.mark.parametrize("version", [OLDEST.removeprefix(">=")[:4], render_chart.KUBERNETES[:4]])
def test_every_object_fits_the_schemas_of_the_oldest_and_the_newest_kubernetes(rendered, version):
    files = [
        file for file in rendered.iterdir()
        # Image volumes are newer than the oldest; there the chart refuses them.
        if file.stem != "lan" or versions.version_of(version) >= (1, 31)
    ]  # fmt: skip
    done = run("kubernetes-validate", "-k", version, "--strict", "--quiet", *files)
    assert done.returncode == 0, done.stdout + done.stderr
    unknown = {
        line.partition("for kind ")[2].split()[0]
        for line in (done.stdout + done.stderr).splitlines()
        if "find schema" in line
    }
    assert unknown <= FOREIGN


def test_the_schemas_refuse_a_misspelt_field(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {container: []}\n")
    assert run("kubernetes-validate", "--strict", bad).returncode != 0


def trivy(folder):
    """Numbers of the checks that fail with a severity of high or critical."""
    done = run("trivy", "config", "--skip-check-update", "--skip-version-check", "--quiet",
               "--severity", "HIGH,CRITICAL", "--format", "json", folder)  # fmt: skip
    results = json.loads(done.stdout)["Results"]
    assert len(results) == len(list(folder.iterdir())), "a file was not looked at"
    return {found["ID"] for result in results for found in result.get("Misconfigurations") or []}


def checkov(folder):
    """Numbers of the checks that fail; without an account they have no severity, so all count."""
    done = run("checkov", "-d", folder, "--framework", "kubernetes", "--output", "json",
               "--compact", "--quiet", "--skip-download")  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["summary"]["parsing_errors"] == 0
    assert answer["summary"]["resource_count"] > 0
    return {failed["check_id"] for failed in answer["results"]["failed_checks"]}


def test_the_scanners_find_nothing_that_is_not_argued_away(rendered):
    found = trivy(rendered) | checkov(rendered)
    assert found - set(FINDINGS) == set(), "new findings"
    assert set(FINDINGS) - found == set(), "argued away, and no longer found"


def test_the_scanners_see_a_privileged_pod(tmp_path):
    container = {"name": "a", "image": "a:1", "securityContext": {"privileged": True}}
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"containers": [container]},
    }  # fmt: skip
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(pod))
    assert "KSV-0017" in trivy(tmp_path)
    assert "CKV_K8S_16" in checkov(tmp_path)
