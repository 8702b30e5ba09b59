"""A new password: in Label Studio and in .env, or in neither, and shown nowhere."""

from __future__ import annotations

import json
import subprocess

import pytest

import compose
import password
from lib import settings
from lib.cli import EX_NOUSER, UserError

BEFORE = "# mine\nA=1\nLABEL_STUDIO_PASSWORD=old # note\nB='x y'\n#LABEL_STUDIO_PASSWORD=no"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (BEFORE, BEFORE.replace("LABEL_STUDIO_PASSWORD=old # note", "LABEL_STUDIO_PASSWORD=new")),
        ("A=1", "A=1\nLABEL_STUDIO_PASSWORD=new\n"),
        ("#LABEL_STUDIO_PASSWORD=x\n", "#LABEL_STUDIO_PASSWORD=x\nLABEL_STUDIO_PASSWORD=new\n"),
        ("A=\n\n export LABEL_STUDIO_PASSWORD = 'x'\nB=", "A=\n\nLABEL_STUDIO_PASSWORD=new\nB="),
        # The last one counts.
        ("LABEL_STUDIO_PASSWORD=1\nLABEL_STUDIO_PASSWORD=2\n",
         "LABEL_STUDIO_PASSWORD=1\nLABEL_STUDIO_PASSWORD=new\n"),
        ("MY_LABEL_STUDIO_PASSWORD=x\n",
         "MY_LABEL_STUDIO_PASSWORD=x\nLABEL_STUDIO_PASSWORD=new\n"),
    ],
)  # fmt: skip
def test_one_line_of_env_changes(before, after):
    assert password.replaced(before, password.NAME, "new") == after
    assert settings.parse_env(after)[password.NAME] == "new"


@pytest.fixture
def container(monkeypatch, tmp_path):
    """Stands in for Compose; ``container.code`` is what it exits with, ``container.asked`` what
    reached it.
    """

    class Container:
        code, error, asked, command = 0, "", {}, []

    def run(command, input, **_):
        Container.asked, Container.command = json.loads(input), command
        return subprocess.CompletedProcess(command, Container.code, "", Container.error)

    path = tmp_path / ".env"
    path.write_text(BEFORE)
    values = {"LABEL_STUDIO_USERNAME": "ann@example.com"}
    monkeypatch.setattr(settings, "ENV_FILE", path)
    monkeypatch.setattr(settings, "env_text", path.read_text)
    monkeypatch.setattr(settings, "values", lambda *_: values)
    monkeypatch.setattr(compose, "command", lambda *words: ["compose", *words])
    monkeypatch.setattr(compose, "environment", dict)
    monkeypatch.setattr(password.subprocess, "run", run)
    return Container


def test_the_password_is_set_and_written_and_never_shown(container, capsys):
    assert password.main() == 0
    new = settings.parse_env(settings.ENV_FILE.read_text())[password.NAME]
    assert len(new) == 24
    assert container.asked == {"user": "ann@example.com", "password": new}
    assert new not in " ".join(container.command)
    assert new not in "".join(capsys.readouterr())
    assert settings.ENV_FILE.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        (EX_NOUSER, "", "no user ann@example.com"),
        (1, "a\nservice is not running\n", "service is not running.*make up"),
        (1, "", "gave no reason"),
    ],
)
def test_env_stays_when_label_studio_does_not_take_it(container, code, error, said):
    container.code, container.error = code, error
    with pytest.raises(UserError, match=said):
        password.main()
    assert settings.ENV_FILE.read_text() == BEFORE


def test_what_runs_in_the_container_is_python():
    compile(password.CHANGE, "change", "exec")
