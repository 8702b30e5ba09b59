#!/usr/bin/env python3
"""``docker compose`` for this project: compose.py ARGUMENT..., for example compose.py ps."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from host import gpu, restoring
from lib import ROOT, docker, settings, versions
from lib.cli import UserError, run_main

# Each setting's file in compose/. Which one for a GPU depends on the host.
OVERLAYS = {"MACVLAN": "macvlan.yaml", "POSTGRES": "postgres.yaml"}
STARTS = frozenset({"up", "run", "create", "config"})
"""Commands that make containers, or say what these would be like."""
MOST_SECRETS = 100 * 1024
"""Bytes of secrets.env. Linux takes no variable above 128 KiB."""


def files(values: Mapping[str, str], host: gpu.Host | None = None) -> list[str]:
    """The files that the settings ask for, in order. ``host``: looked at if it is not given."""
    names = ["compose.yaml"]
    if settings.enabled(values, "GPU"):
        names.append(gpu.overlay(gpu.look((), answers=True) if host is None else host))
    return names + [file for name, file in OVERLAYS.items() if settings.enabled(values, name)]


def with_files(names: Sequence[str], *arguments: str) -> list[str]:
    """The whole command line; files are named from the repository's root, wherever it is run."""
    root = ROOT
    return [
        docker.client(), "compose", "--project-directory", str(root),
        "--env-file", str(settings.ENV_FILE),
        *(word for name in names for word in ("-f", str(root / "compose" / name))),
        *arguments,
    ]  # fmt: skip


def command(*arguments: str) -> list[str]:
    """The command line with the files that the settings ask for."""
    return with_files(files(settings.values()), *arguments)


def beside(*arguments: str) -> list[str]:
    """The command line without the LAN, where a service that runs has the one address there is."""
    names = [name for name in files(settings.values()) if name != OVERLAYS["MACVLAN"]]
    return with_files(names, "--ansi", "never", "--progress", "quiet", *arguments)


def down(*options: str) -> list[str]:
    """The command line that removes all that carries the project's name, by its labels.

    No file is named, so that nothing stays of an overlay that is off by now.
    """
    project = settings.values()["COMPOSE_PROJECT_NAME"]
    words = ["--project-name", project, "down", "--remove-orphans", *options]
    return [docker.client(), "compose", *words]


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


def project_secrets(folder: Path) -> str:
    """The text of ``secrets.env`` in the folder of projects, as it is; empty without one.

    Raises:
        UserError: it cannot be read, or is nothing that fits in a variable.
    """
    path = folder / "secrets.env"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path}: {why}; expected a file that you can read") from None
    if "\0" in text:
        raise UserError(f"{path}: found a NUL byte, expected text, with NAME=value in each line")
    if (size := len(text.encode())) > MOST_SECRETS:
        raise UserError(
            f"{path}: found {size} bytes, expected {MOST_SECRETS} at most. What is no secret "
            "belongs in the projects' own files"
        )
    return text


def starts(arguments: Sequence[str]) -> bool:
    """Whether a command may start setup, which alone needs the projects' secrets."""
    return not STARTS.isdisjoint(arguments)


def environment(environ: Mapping[str, str] | None = None, secrets: bool = False) -> dict[str, str]:
    """The environment of Compose, without empty settings, which would count more than ``.env``.

    With the projects' ``secrets`` for commands that start setup alone: no fault in their file keeps
    others, such as down, from their work.

    Raises:
        UserError: the secrets cannot be had.
    """
    environ = os.environ if environ is None else environ
    empty = {s["name"] for s in settings.declared() if not settings.is_given(s["name"], environ)}
    kept = {name: value for name, value in environ.items() if name not in empty}
    values = settings.values(environ)
    # Compose knows the names of today alone.
    renamed = {s["name"]: values.get(s["name"]) for s in settings.declared() if s["renamed_from"]}
    # The backend's own models are replaced while it runs; code is loaded once.
    code = values.get("MODEL_CLASS")
    fingerprint = models_fingerprint(settings.host_path(values["MODELS_DIR"])) if code else ""
    folder = settings.host_path(values["PROJECTS_DIR"])
    return {
        **kept,
        **{name: value for name, value in renamed.items() if value},
        "LS_YOLO_VERSION": versions.project_version(),
        "MODELS_FINGERPRINT": fingerprint,
        "PROJECT_SECRETS": project_secrets(folder) if secrets else "",
    }


def need_env() -> None:
    """Raises: UserError: there is no ``.env`` yet, or it cannot be read."""
    if not settings.env_text():
        raise UserError("found no .env, so nothing runs yet. Run: make up")


def output(*arguments: str) -> str:
    """What a compose command prints; empty if it fails."""
    words = command("--ansi", "never", *arguments)
    env = environment(secrets=starts(arguments))
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def main(arguments: Sequence[str] = sys.argv[1:]) -> int:
    need_env()
    if not {*STARTS, "start", "restart"}.isdisjoint(arguments):
        restoring.need_none(settings.values())  # half of the data would be of another state
    line = down(*arguments[1:]) if arguments[:1] == ["down"] else command(*arguments)
    sys.stdout.flush()
    os.execve(line[0], line, environment(secrets=starts(arguments)))


if __name__ == "__main__":
    run_main(main)
