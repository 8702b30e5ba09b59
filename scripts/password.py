#!/usr/bin/env python3
"""`make password`: a new password for the first user (LABEL_STUDIO_USERNAME), also a forgotten one.

It is set in the running Label Studio and written into .env, and shown nowhere. Whoever is logged in
as that user must log in again. Safe to run again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess

import compose
import env
from lib import files, settings
from lib.cli import EX_NOUSER, UserError, run_main, say

NAME = "LABEL_STUDIO_PASSWORD"
# Runs inside the container. User and password come by stdin: what stands on a command line can be
# read by others.
CHANGE = f"""\
import importlib.util, json, pathlib, sys
sys.path.insert(0, str(pathlib.Path(importlib.util.find_spec("label_studio").origin).parent))
import django
django.setup()
from users.models import User
asked = json.load(sys.stdin)
found = User.objects.filter(email__iexact=asked["user"]).order_by("pk")
user = found.filter(email=asked["user"].lower()).first() or found.first()
if user is None:
    sys.exit({EX_NOUSER})
user.set_password(asked["password"])
user.save(update_fields=["password"])
"""


def replaced(text: str, name: str, value: str) -> str:
    """The text of ``.env`` with another value of ``name``, and every other line as it was."""
    line = f"{name}={settings.quote_env(value)}"
    found = list(re.finditer(rf"(?m)^[^\S\n]*(?:export\s+)?{name}[^\S\n]*=.*$", text))
    if not found:
        return f"{text}{'' if text.endswith(chr(10)) else chr(10)}{line}\n"
    last = found[-1]  # the one that counts
    return f"{text[: last.start()]}{line}{text[last.end() :]}"


def change(user: str, password: str) -> None:
    """Sets the password in the running Label Studio.

    Raises:
        UserError: it does not run, or has no such user.
    """
    asked = json.dumps({"user": user, "password": password})
    command = compose.command("exec", "-T", "label-studio", "python3", "-c", CHANGE)
    done = subprocess.run(
        command, env=compose.environment(), input=asked, capture_output=True, text=True
    )
    if done.returncode == EX_NOUSER:
        raise UserError(f"Label Studio has no user {user}. Correct LABEL_STUDIO_USERNAME in .env")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it gave no reason"]
        raise UserError(
            f"the password was not changed: {lines[-1]}. Label Studio must run: make up"
        )


def main() -> int:
    compose.need_env()
    user = settings.values()["LABEL_STUDIO_USERNAME"].strip()
    setting = next(s for s in settings.declared() if s["name"] == NAME)
    password = env.new_secret(setting["generate"])
    before = settings.env_text()
    # First the file: a password that only the database has would be lost. What fails later is
    # undone, and a run that was killed in between is put right by the next one.
    files.write_private(settings.ENV_FILE, replaced(before, NAME, password))
    try:
        change(user, password)
    except BaseException:
        files.write_private(settings.ENV_FILE, before)
        raise
    say(f"{user}: new password set; it is {NAME} in .env")
    if settings.is_given(NAME, os.environ):
        say(f"{NAME} is set in the environment too; that one is not the password")
    return 0


if __name__ == "__main__":
    run_main(main)
