"""What Helm says after an installation: warnings, then access, then how to read the password."""

from __future__ import annotations

import base64
import subprocess

import pytest
import yaml

from dev import render_chart
from rendering import joined

CLAIM = ("datasets.type", "claim")


def said(folder, *pairs):
    """The notes, and the manifests that would be installed with them."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(joined(*pairs)))
    done = subprocess.run(
        [render_chart.HELM, "install", "labels", str(render_chart.CHART), "-n", "labels",
         "--dry-run=client", "-f", str(file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifests, _, notes = done.stdout.partition("\nNOTES:\n")
    return notes, manifests.partition("\nMANIFEST:\n")[2]


def warnings(notes):
    return [line for line in notes.splitlines() if line.startswith("[WARNING] ")]


def test_warnings_come_first_then_access_then_the_password(tmp_path):
    notes, _ = said(tmp_path, CLAIM, ("networkPolicy.enabled", False))
    lines = [line for line in notes.splitlines() if line]
    assert lines[:2] == warnings(notes)
    words = [
        "Label Studio http://127.0.0.1:8080",
        "port-forward service/labels-ls-yolo-label-studio",
        "admin@example.com",
        "get secret labels-ls-yolo",
        "helm -n labels test labels",
    ]
    places = [next(n for n, line in enumerate(lines) if word in line) for word in words]
    assert places == sorted(places) and places[0] == 2


def test_the_defaults_warn_of_nothing(tmp_path):
    assert warnings(said(tmp_path)[0]) == []


@pytest.mark.parametrize(
    ("pairs", "word"),
    [
        ([CLAIM], "kept on one node"),
        ([("labelStudio.replicas", 2), ("postgres.enabled", True)], "kept on one node"),
        ([("backend.replicas", 2), ("backend.cache.enabled", True)], "kept on one node"),
        ([("labelStudio.persistence.enabled", False)], "lost with the pod"),
        ([("postgres.enabled", True), ("postgres.persistence.enabled", False)], "lost with"),
        ([("networkPolicy.enabled", False)], "every pod of the cluster"),
        ([("ingress.enabled", True), ("ingress.host", "a.example")], "http://a.example is not"),
        ([("backend.env.ALLOW_UNSAFE_WEIGHTS", True)], "ALLOW_UNSAFE_WEIGHTS=true"),
        ([("labelStudio.allowDataChange", True)], "take it away"),
        ([("setup.enabled", False)], "no project is made"),
    ],
)  # fmt: skip
def test_what_an_administrator_should_know_is_one_warning(pairs, word, tmp_path):
    (warning,) = warnings(said(tmp_path, *pairs)[0])
    assert word in warning


def test_images_that_many_nodes_can_mount_pin_nothing_and_warn_of_nothing(tmp_path):
    notes, _ = said(tmp_path, CLAIM, ("datasets.claim.accessModes", ["ReadWriteMany"]))
    assert warnings(notes) == []


def test_behind_an_ingress_its_address_is_told_in_place_of_a_port_forward(tmp_path):
    notes, _ = said(tmp_path, ("ingress.enabled", True), ("ingress.host", "a.example"),
                    ("ingress.tls.enabled", True))  # fmt: skip
    assert "Label Studio https://a.example" in notes
    assert "port-forward" not in notes


def test_no_secret_is_told(tmp_path):
    notes, manifests = said(tmp_path, ("postgres.enabled", True),
                            ("metrics.serviceMonitor.enabled", True))  # fmt: skip
    secrets = {
        value
        for found in yaml.safe_load_all(manifests) if found and found["kind"] == "Secret"
        for name, value in found["data"].items() if name != "username"
    }  # fmt: skip
    assert len(secrets) == 5
    for value in secrets:
        assert value not in notes
        assert base64.b64decode(value).decode() not in notes
