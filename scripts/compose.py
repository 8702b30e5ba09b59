#!/usr/bin/env python3
"""``docker compose`` for this project: compose.py ARGUMENT..., for example compose.py ps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

import common


def command(*arguments: str) -> list[str]:
    """The whole command line; files are named from the repository's root, wherever it is run."""
    root = common.ROOT
    return [
        common.docker(), "compose", "--project-directory", str(root),
        "--env-file", str(common.ENV_FILE), "-f", str(root / "compose" / "compose.yaml"),
        *arguments,
    ]  # fmt: skip


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    environ = os.environ if environ is None else environ
    return {**environ, "LS_YOLO_VERSION": common.project_version()}


def output(*arguments: str) -> str:
    """What a compose command prints; empty if it fails."""
    done = subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else ""


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    if not common.ENV_FILE.is_file():
        raise common.Failure("found no .env, so nothing runs yet. Run: make up")
    line = command(*arguments)
    sys.stdout.flush()
    os.execve(line[0], line, environment())


if __name__ == "__main__":
    common.run_main(main)
