#!/usr/bin/env python3
"""`make destroy`: removes containers and volumes, with every project and annotation in them.

Asks first; FORCE=1 does not. Images, datasets/, models/ and .env stay.
"""

from __future__ import annotations

import os
import subprocess
import sys

import compose
from host import upgrading, volumes
from lib import commands, docker, settings
from lib.cli import UserError, run_main, say


def main() -> int:
    if not settings.env_text():
        raise UserError("found no .env, so there is nothing to remove")
    project = settings.values()["COMPOSE_PROJECT_NAME"]
    if os.environ.get("FORCE", "").lower() not in ("1", "true", "yes"):
        if not sys.stdin.isatty():
            raise UserError("nobody is there to ask. To go on without asking: FORCE=1")
        say(
            f"This removes the containers and volumes of {project}: every project and annotation "
            "in Label Studio. Images, datasets, models and .env stay."
        )
        if input(f"Type {project} to go on: ").strip() != project:
            say("Nothing was removed")
            return 1
    for part in volumes.parts(settings.values()):
        if isinstance(part, volumes.Volume):
            remove_unstarted(part.where)
    code = subprocess.run(compose.down("--volumes")).returncode
    if code == 0:
        # There is nothing left for it to go on with.
        upgrading.journal(settings.values()).unlink(missing_ok=True)
    return code


def remove_unstarted(volume: str) -> None:
    """Removes what holds a volume and never ran: a backup that was killed leaves it so."""
    held = ["--filter", f"volume={volume}", "--filter", "status=created"]
    for each in (commands.output([docker.client(), "ps", "--all", "--quiet", *held]) or "").split():
        commands.output([docker.client(), "rm", each])


if __name__ == "__main__":
    run_main(main)
