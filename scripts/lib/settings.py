"""Settings: the one list of them, ``.env``, and what counts."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import ROOT
from lib.cli import UserError

# Tests have a .env of their own, beside the one of whoever runs them.
ENV_FILE = Path(os.environ.get("LS_YOLO_ENV_FILE") or ROOT / ".env").absolute()


@functools.cache
def declared() -> tuple[dict[str, Any], ...]:
    """Every setting, from the one list that the backend keeps."""
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.settings", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "backend"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"cannot read the list of settings:\n{done.stderr.strip()}")
    return tuple(json.loads(done.stdout))


_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def quote_env(value: str) -> str:
    """``value`` as ``.env`` must spell it for Compose and ``parse_env`` to read the same back."""
    if "\n" in value or "\r" in value or "\0" in value:
        raise UserError("a value of .env cannot hold a line break")
    if _PLAIN.fullmatch(value):
        return value
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"  # nothing is special between single quotes
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def parse_env(text: str) -> dict[str, str]:
    """The values of an ``.env`` file, read as Compose reads them (without references: ``${X}``)."""
    values = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if not match:
            continue
        name, value = match.groups()
        if inside := re.match(r"'((?:[^'\\]|\\.)*)'", value):
            value = inside[1].replace("\\'", "'")
        elif inside := re.match(r'"((?:[^"\\]|\\.)*)"', value):
            value = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), inside[1])
        else:
            value = re.sub(r"(^|\s+)#.*", "", value).strip()
        values[name] = value
    return values


def references(text: str) -> list[str]:
    """The names in an ``.env`` file whose values Compose would change for a ``$`` in them."""
    names = []
    for line in text.splitlines():
        if not (match := _LINE.fullmatch(line)):
            continue
        name, value = match.groups()
        if value.startswith("'"):
            continue  # nothing is special between single quotes
        if value.startswith('"'):
            value = re.sub(r"\\.", "", value)  # \$ is the sign itself, but only between these
        else:
            value = re.sub(r"(^|\s+)#.*", "", value)
        if re.search(r"\$[A-Za-z_{$]", value):
            names.append(name)
    return names


def env_text(path: Path | None = None) -> str:
    """What ``.env`` says; nothing where there is none."""
    path = path or ENV_FILE
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise not_ours(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None


def not_ours(path: Path) -> UserError:
    return UserError(
        f"{path} belongs to another user, as after sudo make up. "
        f'Run: sudo chown "$USER" {shlex.quote(str(path))}'
    )


def given(setting: Mapping[str, Any], layer: Mapping[str, str]) -> str | None:
    """What the environment or ``.env`` sets the setting to, perhaps by its older name; else None.

    Set but empty is "not set", as in Compose's ${X:-default}, unless it may be empty.
    """
    if setting["may_be_empty"]:
        return layer.get(setting["name"])
    names = (setting["name"], setting["renamed_from"])
    return next((layer[name] for name in names if layer.get(name, "").strip()), None)


def is_given(name: str, layer: Mapping[str, str]) -> bool:
    """Whether the environment or ``.env`` sets the setting."""
    return given(next(s for s in declared() if s["name"] == name), layer) is not None


def old_names(layer: Mapping[str, str]) -> dict[str, str]:
    """The older names that the environment or ``.env`` sets, each with the name of today."""
    return {s["renamed_from"]: s["name"] for s in declared() if layer.get(s["renamed_from"], "")}


def values(
    environ: Mapping[str, str] | None = None, env_file: Path | None = None
) -> dict[str, str]:
    """Every setting's value: the environment first, then ``.env``, then the default."""
    layers = [os.environ if environ is None else environ, parse_env(env_text(env_file))]
    return {
        setting["name"]: next(
            (text for layer in layers if (text := given(setting, layer)) is not None),
            setting["default"],
        )
        for setting in declared()
    }


def enabled(values: Mapping[str, str], name: str) -> bool:
    """Whether a setting of type bool says yes; what is neither yes nor no is told elsewhere."""
    return values[name].strip().lower() in ("1", "true", "yes", "on")


def host_path(value: str) -> Path:
    """A path of the settings: from the repository's root where it is relative, as in Compose."""
    return (ROOT / Path(value).expanduser()).resolve()
