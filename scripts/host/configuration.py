"""The settings, names in ``.env`` and folders that a person has chosen."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from host.checks import STOP, WARNING, Check
from lib import ROOT, settings
from lib.cli import EX_CONFIG, UserError


def to_look_at(
    values: Mapping[str, str], settings: Iterable[Mapping[str, Any]], given: Collection[str]
) -> dict[str, str]:
    """``values`` as the services will see them: ``.env`` will have secrets, for which made-up ones
    stand here, and what Compose fixes is not what the environment happens to say.
    """
    result = dict(values)
    for setting in settings:
        if setting["fixed"]:
            result[setting["name"]] = setting["default"]
        elif setting["generate"] and setting["name"] not in given:
            result[setting["name"]] = "0" * 40
    return result


def ask_for_faults(values: Mapping[str, str]) -> tuple[int, str, str]:
    """Exit code and output of the backend's own look at the settings."""
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.settings", "--check"],
        env={
            **os.environ, **values,
            "PYTHONPATH": str(ROOT / "backend"), "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def check_settings(
    values: Mapping[str, str],
    ask: Callable[[Mapping[str, str]], tuple[int, str, str]] = ask_for_faults,
) -> list[Check]:
    """One line for each value that cannot be used; one in all if there is none."""
    code, lines, errors = ask(values)
    if code not in (0, EX_CONFIG):
        raise UserError(f"the settings cannot be looked at:\n{errors.strip()}")
    faults = lines.splitlines() if code else []
    if values["BASIC_AUTH_PASS"] and not values["BASIC_AUTH_USER"]:
        faults.append(
            "BASIC_AUTH_USER: found '', expected a user for BASIC_AUTH_PASS, or both empty"
        )
    if not faults:
        return [Check("settings", "can be used", "can be used")]
    checks = []
    for fault in faults:
        name, _, rest = fault.partition(": ")
        found, _, expected = rest.removeprefix("found ").partition(", expected ")
        fix = "Correct it in .env, or where the environment sets it"
        if expected:
            fix = f"Expected {expected}. {fix}"
        checks.append(Check(name, found, expected, STOP, fix))
    return checks


# Names of .env that are no settings of ours but mean something to docker, Compose or a proxy.
OTHERS = re.compile(r"(COMPOSE|DOCKER|BUILDX|BUILDKIT|LS_YOLO)_\w+|\w+_PROXY", re.IGNORECASE)


def check_names(written: Iterable[str], settings: Iterable[Mapping[str, Any]]) -> list[Check]:
    """A line for each name in ``.env`` that changes nothing: most likely a slip of the hand."""
    fixed = {setting["name"]: setting["fixed"] for setting in settings}
    free = [name for name, is_fixed in fixed.items() if not is_fixed]
    checks = []
    for name in written:
        if fixed.get(name):
            found, fix = "has no effect", "Compose sets it: remove its line from .env"
        elif name in fixed or OTHERS.fullmatch(name):
            continue
        else:
            found, fix = "is no setting", "docs/settings.md lists them"
            if near := difflib.get_close_matches(name.upper(), free, 1):
                fix = f"Did you mean {near[0]}?"
        checks.append(Check(name, f"{found}, but is in .env", "a setting", WARNING, fix))
    return checks


def check_references(names: Iterable[str]) -> list[Check]:
    """A line for each value of ``.env`` that Compose would read another way than the scripts."""
    fix = "Write out what $ stands for; or, where it is part of the value, put the value in '...'"
    return [
        Check(name, "has a $ that Compose fills in", "a plain value", STOP, fix) for name in names
    ]


def check_folders(values: Mapping[str, str]) -> list[Check]:
    """What a person must bring who does not use the folders of this repository."""
    models = settings.host_path(values["MODELS_DIR"])
    projects = settings.host_path(values["PROJECTS_DIR"])
    listed = models / "models.yaml"
    checks = []
    if values["MODEL_CLASS"] and models.is_dir():  # a class of one's own reads no models.yaml
        checks.append(Check("models", str(models), "a folder"))
    elif listed.is_file():
        checks.append(Check("models", str(listed), "models.yaml"))
    elif models == settings.host_path("models"):
        checks.append(Check("models", "none yet: make up begins with the demo's", "models.yaml"))
    else:
        found = f"no models.yaml in {models}" if models.is_dir() else f"no folder {models}"
        checks.append(Check(
            "models", found, "models.yaml", STOP,
            f"Write {listed}; for the weights {models / 'best.pt'}, two lines are enough:\n"
            "      my-model:\n"
            "        weights: best.pt\n"
            "    Or correct MODELS_DIR in .env; ./models is the demo's",
        ))  # fmt: skip
    if projects.is_dir() or projects == settings.host_path("projects"):
        checks.append(Check("projects", str(projects), "a folder"))
    else:
        checks.append(Check(
            "projects", f"no folder {projects}", "a folder", STOP,
            "Make it and describe a project in it (docs/projects.md), or correct PROJECTS_DIR in "
            ".env; ./projects is the demo's",
        ))  # fmt: skip
    return checks
