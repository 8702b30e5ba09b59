#!/usr/bin/env python3
"""`make export`: a project of the running Label Studio as YAML.

    export_project.py TITLE_OR_NUMBER [FILE]

Without FILE it is printed. A file is written whole or not at all.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import compose
from lib.cli import UserError, run_main, say


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    if len(words) not in (1, 2) or not words[0]:
        raise UserError(
            f"found {len(words)} words, expected a project and at most a file: "
            'make export PROJECT="Wheelhouse" FILE=projects/wheelhouse.yaml'
        )
    compose.need_env()
    command = compose.command(
        "run", "--rm", "--no-deps", "-T", "setup", "ls-yolo", "export", "--", words[0]
    )
    environ = compose.environment(secrets=True)
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return done.returncode
    if len(words) == 1:
        sys.stdout.buffer.write(done.stdout)
        return 0
    target = Path(words[1])
    beside = target.with_name(f".{target.name}.new")
    beside.write_bytes(done.stdout)
    beside.replace(target)
    say(f"{target}: written; look at it, then: make apply FILE={target.name} ARGS=--diff")
    return 0


if __name__ == "__main__":
    run_main(main)
