"""What the Makefile offers."""

from __future__ import annotations

import subprocess

from lib import ROOT


def test_every_target_of_make_has_a_line_of_help():
    help_text = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in (
        "up", "down", "destroy", "logs", "status", "test", "test-lint", "test-unit",
        "test-integration", "lock", "help", "images", "preflight", "setup", "password", "apply",
        "export", "doctor", "support", "backup", "backup-verify", "restore", "upgrade",
        "bundle", "bundle-push",
        "predictions", "schema", "helm-install", "helm-prelabel",
    ):  # fmt: skip
        assert f"  make {target} " in help_text
