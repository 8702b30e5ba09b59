"""Versions, the file of minimums, and .env as Compose and the scripts read it."""

from __future__ import annotations

import errno
import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lib import ROOT, docker, net, settings, versions
from lib.cli import UserError, run_main


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker Compose version v2.40.3", (2, 40, 3)),
        ("Docker Compose version 2.26.1-4", (2, 26, 1)),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", (0, 13, 1)),
        ("5:28.0.1-1~debian.12~bookworm", (28, 0, 1)),
        ("20.10.24+dfsg1-1+deb12u1+b6", (20, 10, 24)),
        ("26", (26,)),
        ("none", ()),
        ("", ()),
    ],
)
def test_version_of(text, version):
    assert versions.version_of(text) == version


@pytest.mark.parametrize(
    ("found", "needed", "enough"),
    [
        ("26.1.5+dfsg1", "26.1", True),
        ("26.1", "26.1.0", True),
        ("26.0.9", "26.1", False),
        ("2.9.0", "2.26.1", False),
        ("2.100.0", "2.26.1", True),
        ("3.11.2", "3.11", True),
        ("", "1", False),
    ],
)
def test_at_least(found, needed, enough):
    assert versions.at_least(found, needed) is enough


numbers = st.lists(st.integers(0, 999), min_size=2, max_size=4).map(tuple)


@given(numbers, numbers)
def test_versions_are_ordered_as_numbers(one, other):
    one_text, other_text = (".".join(map(str, version)) for version in (one, other))
    width = max(len(one), len(other))
    padded = [version + (0,) * (width - len(version)) for version in (one, other)]
    assert versions.at_least(one_text, other_text) == (padded[0] >= padded[1])


def test_minimums_are_numbers_that_yaml_reads_as_we_do():
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(versions.MINIMUMS_FILE.read_text())
    assert {name: str(value) for name, value in read.items()} == versions.minimums()


def test_minimums_name_the_line_that_is_wrong():
    with pytest.raises(UserError, match=r"line 2.*compose = 2"):
        versions.parse_minimums("# numbers\ncompose = 2\n")


def test_minimums_quote_versions():
    # 26.10 without quotes is the number 26.1 to YAML.
    for line in versions.MINIMUMS_FILE.read_text().splitlines():
        name = line.partition(":")[0]
        if name in ("docker_engine", "compose", "buildx", "python"):
            assert '"' in line


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


def test_a_file_of_root_is_one_line_and_no_traceback(capsys):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "/a/b c")

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: /a/b c: permission denied")
    assert said.endswith("sudo chown -R \"$USER\" '/a/b c'\n")


def client(folder: Path) -> str:
    folder.mkdir()
    program = folder / "docker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return str(program)


def test_every_client_is_found_once(tmp_path, monkeypatch):
    old, new = client(tmp_path / "old"), client(tmp_path / "new")
    (tmp_path / "same").symlink_to(tmp_path / "new")
    path = os.pathsep.join(str(tmp_path / name) for name in ("old", "none", "new", "same"))
    monkeypatch.setenv("PATH", path)
    assert [found for found in docker.clients() if str(tmp_path) in found] == [old, new]


def test_an_old_client_that_stands_first_is_passed_over():
    def ask(command):
        name, *words = command
        if name == "old":
            return "20.10.24" if words[0] == "version" else None
        return {"version": "26.1.5", "compose": "v2.26.1", "buildx": "0.13.1"}[words[0]]

    assert docker.choose(["old", "new"], ask) == "new"
    assert docker.choose(["old"], ask) == "old"
    assert docker.choose([], ask) is None


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


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://ann:p%40s@host:8/simple/", ("https://host:8/simple/", "ann", "p@s")),
        ("https://token@host/", ("https://host/", "token", "")),
        ("https://ann:p@ss@host/", ("https://host/", "ann", "p@ss")),
        ("https://host/a@b", ("https://host/a@b", "", "")),
        ("", ("", "", "")),
    ],
)
def test_a_login_in_an_address_is_split_off(url, parts):
    assert net.split_login(url) == parts
    assert net.without_password(url) == parts[0]


def test_a_login_goes_to_its_own_host_alone():
    index = "https://ann:secret@host/simple"
    assert net.with_login_of(index, "https://host/a.whl") == "https://ann:secret@host/a.whl"
    for other in ("https://files/a.whl", "http://host/a.whl"):
        assert net.with_login_of(index, other) == other
    assert net.with_login_of("https://host/simple", "https://host/a") == "https://host/a"


def test_a_login_reaches_the_server():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            good = self.headers["Authorization"] == "Basic YW5uOnBAc3M="
            self.send_response(200 if good else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        assert net.answers(f"http://ann:p%40ss@{host}/")
        assert not net.answers(f"http://ann:other@{host}/")
        server.shutdown()
