"""``.env`` as people write it and as Compose reads it, and which value counts."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib import ROOT, settings
from lib.cli import UserError

# Anything that a person can type on one line.
line_text = st.text(
    st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\u2028\u2029\x85")
)


@given(line_text)
@example('it\'s $HOME and "more" \\')
@example("ends with \\")
@example("a # b")
@example("'")
def test_env_values_come_back_as_they_were(value):
    assert settings.parse_env(f"NAME={settings.quote_env(value)}\n") == {"NAME": value}


def test_env_values_have_no_line_breaks():
    with pytest.raises(UserError, match="line break"):
        settings.quote_env("a\nb")


def test_env_file_as_people_write_it():
    text = (
        "# comment\n\nA=1\nexport B = two words # note\nC='x # y'\n"
        'D="a\\"b\\$c"\nE=\nF=pl#ain\n  G=g\nnot a line\nA=2\n'
    )
    assert settings.parse_env(text) == {
        "A": "2",
        "B": "two words",
        "C": "x # y",
        "D": 'a"b$c',
        "E": "",
        "F": "pl#ain",
        "G": "g",
    }


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("A=$HOME/images", True),
        ("A=${HOME}/images", True),
        ('A="pa$word"', True),
        ("A=pa$$word", True),
        (r"A=pa\$word", True),  # a backslash means nothing without quotes
        ("A='pa$word'", False),
        (r'A="pa\$word"', False),
        ("A=pa$", False),
        ("A=$1", False),
        ("A=x # $HOME", False),
        ("# A=$HOME", False),
    ],
)
def test_values_are_found_that_compose_would_fill_in(line, changed):
    assert settings.references(line + "\n") == (["A"] if changed else [])


@given(st.text(alphabet="ab$ {}\"\\'#HOME").filter(lambda text: text.strip() == text))
def test_no_value_that_is_quoted_for_env_has_a_reference(value):
    assert settings.references(f"NAME={settings.quote_env(value)}\n") == []


def test_values_come_from_the_environment_then_env_then_default(tmp_path):
    env = tmp_path / ".env"
    env.write_text("LABEL_STUDIO_PORT=8001\nBACKEND_PORT=9001\nAPT_MIRROR=http://a/debian\n")
    values = settings.values({"LABEL_STUDIO_PORT": "8002"}, env)
    assert values["LABEL_STUDIO_PORT"] == "8002"
    assert values["BACKEND_PORT"] == "9001"
    assert values["APT_MIRROR"] == "http://a/debian"
    assert values["BIND_ADDRESS"] == "127.0.0.1"


def test_an_empty_value_is_not_set(tmp_path):
    env = tmp_path / ".env"
    env.write_text("BACKEND_PORT=9001\nDATASETS_DIR=\nMODELS_DIR=' '\nAPT_MIRROR=http://a\n")
    values = settings.values({"BACKEND_PORT": "", "APT_MIRROR": ""}, env)
    assert values["BACKEND_PORT"] == "9001"
    assert values["APT_MIRROR"] == "http://a"
    assert values["DATASETS_DIR"] == "./datasets"
    assert values["MODELS_DIR"] == "./models"


def test_only_authentication_can_be_set_to_nothing(tmp_path):
    env = tmp_path / ".env"
    env.write_text("BASIC_AUTH_USER=ann\nBASIC_AUTH_PASS=secret\n")
    values = settings.values({"BASIC_AUTH_USER": "", "BASIC_AUTH_PASS": ""}, env)
    assert values["BASIC_AUTH_USER"] == values["BASIC_AUTH_PASS"] == ""


def test_an_env_file_that_is_roots_has_a_cure(monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", refuse)  # the tests may run as root
    with pytest.raises(UserError, match=r'sudo chown "\$USER" /a/\.env'):
        settings.env_text(Path("/a/.env"))


def test_an_env_file_that_is_no_text_is_said_to_be_so(tmp_path):
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(UserError, match="cannot be read as text"):
        settings.env_text(tmp_path / ".env")


def test_another_env_file_counts_everywhere(tmp_path):
    """Wherever the scripts speak of .env: in values, in what is written, and for Compose."""
    path = tmp_path / "own.env"
    path.write_text("LABEL_STUDIO_PORT=8123\n")
    look = (
        "import compose; from lib import docker, settings; docker.client = lambda: 'docker';"
        "print(settings.values({})['LABEL_STUDIO_PORT'], *compose.command('ps'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        cwd=ROOT / "scripts", text=True, capture_output=True, check=True,
        env={**os.environ, "LS_YOLO_ENV_FILE": str(path), "LABEL_STUDIO_PORT": ""},
    )  # fmt: skip
    words = done.stdout.split()
    assert words[0] == "8123"
    assert words[words.index("--env-file") + 1] == str(path)
