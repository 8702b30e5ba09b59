#!/usr/bin/env python3
"""Lets Compose check compose/compose.yaml, with made-up secrets and defaults for the rest."""

from __future__ import annotations

import os
import subprocess
import sys

import common
import compose


def main() -> int:
    if not common.docker_clients() or not common.output([common.docker(), "compose", "version"]):
        common.say("compose.yaml: not checked, no Compose here yet (make test-integration does it)")
        return 0
    secrets = {s["name"]: "x" * 40 for s in common.settings() if s["secret"] or s["generate"]}
    values = {s["name"]: s["default"] for s in common.settings()} | secrets
    line = [
        word if word != str(common.ENV_FILE) else os.devnull for word in compose.command("config")
    ]
    done = subprocess.run([*line, "--quiet"], env=compose.environment({**os.environ, **values}))
    if done.returncode == 0:
        common.say("compose.yaml: no error found")
    return done.returncode


if __name__ == "__main__":
    if len(sys.argv) > 1:
        common.say(__doc__ or "")
        raise SystemExit(2)
    common.run_main(main)
