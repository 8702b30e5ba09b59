"""Lets Compose check the files of compose/, each alone and all together.

Secrets are made up; the rest are defaults.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import compose
from host import gpu
from lib import commands, docker, settings
from lib.cli import run_main, say, say_error


def combinations() -> list[list[str]]:
    """The files of every choice of overlays."""
    overlays = [[], [gpu.CDI], [gpu.RUNTIME]], *([[], [file]] for file in compose.OVERLAYS.values())
    return [
        ["compose.yaml", *itertools.chain.from_iterable(chosen)]
        for chosen in itertools.product(*overlays)
    ]


def main() -> int:
    if not docker.clients() or not commands.output([docker.client(), "compose", "version"]):
        say("compose/: not checked, no Compose here yet (make test-integration does it)")
        return 0
    secrets = {s["name"]: "x" * 40 for s in settings.declared() if s["secret"] or s["generate"]}
    values = {s["name"]: s["default"] for s in settings.declared()} | secrets
    values["MACVLAN_PARENT"] = "eth0"
    environment = compose.environment({**os.environ, **values}, secrets=True)
    for names in combinations():
        line = compose.with_files(names, "config", "--quiet")
        line = [word if word != str(settings.ENV_FILE) else os.devnull for word in line]
        if code := subprocess.run(line, env=environment).returncode:
            say_error(f"found in {', '.join(names)}")
            return code
    say("compose/: no error found")
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        say(__doc__ or "")
        raise SystemExit(2)
    run_main(main)
