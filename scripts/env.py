#!/usr/bin/env python3
"""Makes ``.env``: every setting with its meaning, secrets generated. Never overwrites a line of it.

Where ``.env`` exists, only settings that it does not name at all are added at its end. What is set
in the environment (`make up LABEL_STUDIO_PORT=8081`) is written when its line is made.

    env.py [-]

-: lines of the form of .env come by stdin, and count as if they were in the environment; so no
command line holds a secret.
"""

from __future__ import annotations

import functools
import os
import re
import secrets
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from host import gpu
from lib import files, net, settings
from lib.cli import UserError, run_main, say

Setting = Mapping[str, Any]

GROUPS = {
    "host": "Host: ports, folders, limits",
    "label-studio": "Label Studio",
    "backend": "Backend",
    "setup": "Setup: what makes the projects",
    "build": "Image builds (nothing of these stays in an image)",
}
HEADER = """\
# Settings of this installation, made by `make up`. Yours to change: no line is ever overwritten.
# It holds secrets: keep its mode at 0600 and out of version control.
# Every setting is explained in docs/settings.md. After a change: make up
"""


def new_secret(how: str) -> str:
    """A secret as ``generate`` says: ``hex:24`` is 24 hexadecimal digits."""
    match = re.fullmatch(r"hex:([1-9][0-9]*)", how)
    if not match or int(match[1]) % 2:
        raise UserError(f"settings: found generate={how!r}, expected hex:N with N even")
    return secrets.token_hex(int(match[1]) // 2)


def first_value(
    setting: Setting, environ: Mapping[str, str], torch_index: Callable[[], str]
) -> str:
    """What a line says when it is made: the environment's value, a new secret or the default."""
    if (text := settings.given(setting, environ)) is not None:
        return text.strip()
    if setting["generate"]:
        return new_secret(setting["generate"])
    if setting["name"] == "TORCH_INDEX" and "TORCH_INDEX" not in environ:
        return torch_index()
    return str(setting["default"])


def comment(setting: Setting) -> str:
    """The lines above a setting: meaning, unit, bounds, default."""
    facts = []
    if setting["unit"]:
        facts.append(f"in {setting['unit']}")
    low, high = setting["minimum"], setting["maximum"]
    if low is not None and high is not None:
        facts.append(f"{low:g} to {high:g}")
    if setting["generate"]:
        facts.append("generated")
    else:
        facts.append(f"default: {setting['default'] or 'empty'}")
    text = f"{setting['meaning']} ({'; '.join(facts)})"
    lines = textwrap.wrap(text, 96, break_long_words=False, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def grouped(settings: Iterable[Setting]) -> dict[str, list[Setting]]:
    """Settings under the heading of the first that reads them."""
    groups: dict[str, list[Setting]] = {name: [] for name in GROUPS}
    for setting in settings:
        if not setting["fixed"]:
            groups.setdefault(setting["readers"][0], []).append(setting)
    return {name: members for name, members in groups.items() if members}


def lines_for(
    known: Iterable[Setting], environ: Mapping[str, str], torch_index: Callable[[], str]
) -> str:
    parts = []
    for group, members in grouped(known).items():
        parts.append(f"\n# --- {GROUPS.get(group, group)} ---\n")
        for setting in members:
            value = settings.quote_env(first_value(setting, environ, torch_index))
            parts.append(f"\n{comment(setting)}{setting['name']}={value}\n")
    return "".join(parts)


def named(text: str, setting: Setting) -> bool:
    """Whether ``.env`` has a line for a setting. A commented-out one counts: someone chose so;
    but a secret has no default to fall back on, so there must be one.
    """
    if setting["generate"]:
        return settings.is_given(setting["name"], settings.parse_env(text))
    return bool(re.search(rf"(?m)^\s*(?:#\s*)?(?:export\s+)?{setting['name']}\s*=", text))


def updated(
    text: str | None,
    known: Iterable[Setting],
    environ: Mapping[str, str],
    torch_index: Callable[[], str],
) -> tuple[str, list[str]]:
    """The text of ``.env`` after this run, and the names that were added."""
    missing = [s for s in known if not s["fixed"] and (text is None or not named(text, s))]
    names = [setting["name"] for setting in missing]
    written = settings.parse_env(text or "")
    # What an older .env says under an older name goes on to hold.
    carried = {
        s["name"]: written[s["renamed_from"]] for s in missing if s["renamed_from"] in written
    }
    environ = {**carried, **environ}
    if text is None:
        return HEADER + lines_for(missing, environ, torch_index), names
    if not missing:
        return text, []
    if text and not text.endswith("\n"):
        text += "\n"
    return text + lines_for(missing, environ, torch_index), names


@functools.cache
def cpu_index_answers() -> bool:
    """Whether torch's own index of CPU builds can be reached; asked once, since a network that
    swallows requests lets it wait."""
    bundle = settings.values()["CA_BUNDLE"]
    return net.answers(f"{net.CPU_TORCH_INDEX}/torch/", ca_bundle=bundle)


def torch_index_for_host() -> str:
    """torch's own CPU index where no GPU is found and it answers: 5 GB less."""
    if settings.values()["IMAGES"] == "present":
        return ""
    if found := gpu.gpus():
        say(
            f"torch with CUDA is used: found {found[0]}. Without GPU=1 the backend uses the CPU "
            f"alone; TORCH_INDEX={net.CPU_TORCH_INDEX} would save 5 GB then"
        )
        return ""
    if cpu_index_answers():
        say(f"torch for the CPU is used ({net.CPU_TORCH_INDEX}): found no NVIDIA GPU")
        return net.CPU_TORCH_INDEX
    say(f"torch with CUDA is used: no GPU was found, but {net.CPU_TORCH_INDEX} does not answer")
    return ""


def overridden(
    written: Mapping[str, str], known: Iterable[Setting], environ: Mapping[str, str]
) -> list[str]:
    """Settings whose line in ``.env`` gives way to the environment in this run."""
    return [
        setting["name"]
        for setting in known
        if settings.given(setting, environ) not in (None, written.get(setting["name"]))
    ]


def make(path: Path, environ: Mapping[str, str], torch_index: Callable[[], str]) -> list[str]:
    """Makes or completes ``path``; returns the names that were added."""
    before = settings.env_text(path) if path.is_file() else None
    text, added = updated(before, settings.declared(), environ, torch_index)
    if text != before:
        files.write_private(path, text)
    elif path.stat().st_mode & 0o077:
        try:
            path.chmod(0o600)
        except PermissionError:
            raise settings.not_ours(path) from None
        say(f"{path.name}: others could read it; its mode is 0600 again")
    return added


def main(arguments: Sequence[str] = ()) -> int:
    if list(arguments) == ["-"]:
        os.environ.update(settings.parse_env(sys.stdin.read()))
    elif arguments:
        raise UserError(f"found {' '.join(arguments)}, expected nothing or -")
    path = settings.ENV_FILE
    new = not path.exists()
    added = make(path, os.environ, torch_index_for_host)
    if new:
        say(f"{path.name}: made, with new secrets; only you can read it")
        if taken := [name for name in added if settings.is_given(name, os.environ)]:
            say(f"{path.name}: taken from the environment: {', '.join(taken)}")
    elif added:
        say(f"{path.name}: added {', '.join(added)}")
    else:
        say(f"{path.name}: complete, left as it is")
    written = settings.parse_env(settings.env_text(path))
    for old, name in {**settings.old_names(written), **settings.old_names(os.environ)}.items():
        say(f"warning: {old} is called {name} now; rename it in {path.name} and wherever it is set")
    for name in overridden(written, settings.declared(), os.environ):
        say(f"{path.name}: {name} is set in the environment too, which counts in this run")
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
