#!/usr/bin/env python3
"""``docker compose`` for this project: compose.py ARGUMENT..., for example compose.py ps."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import common


def command(*arguments: str) -> list[str]:
    """The whole command line; files are named from the repository's root, wherever it is run."""
    root = common.ROOT
    return [
        common.docker(), "compose", "--project-directory", str(root),
        "--env-file", str(common.ENV_FILE), "-f", str(root / "compose" / "compose.yaml"),
        *arguments,
    ]  # fmt: skip


def models_fingerprint(folder: Path) -> str:
    """Changes whenever models.yaml, weights or a model.py do: the backend is then made anew.

    By name, size and time of change, because weights can be large.
    """
    digest = hashlib.sha256()
    for path in sorted(
        path for path in folder.rglob("*") if path.suffix in (".pt", ".yaml", ".py")
    ):
        found = path.stat()
        digest.update(f"{path.relative_to(folder)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of Compose, without empty settings, which would count more than ``.env``."""
    environ = os.environ if environ is None else environ
    empty = {s["name"] for s in common.settings() if not common.is_given(s["name"], environ)}
    kept = {name: value for name, value in environ.items() if name not in empty}
    values = common.values(environ)
    # The backend's own models are replaced while it runs; code is loaded once.
    code = values.get("MODEL_CLASS")
    fingerprint = models_fingerprint(common.host_path(values["MODELS_DIR"])) if code else ""
    return {
        **kept,
        "LS_YOLO_VERSION": common.project_version(),
        "MODELS_FINGERPRINT": fingerprint,
    }


def need_env() -> None:
    """Raises: Failure: there is no ``.env`` yet, or it cannot be read."""
    if not common.env_text():
        raise common.Failure("found no .env, so nothing runs yet. Run: make up")


def output(*arguments: str) -> str:
    """What a compose command prints; empty if it fails."""
    words = command("--ansi", "never", *arguments)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    need_env()
    line = command(*arguments)
    sys.stdout.flush()
    os.execve(line[0], line, environment())


if __name__ == "__main__":
    common.run_main(main)
