"""The checks that come before anything is changed, all together."""

from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import preflight
from host import docker_engine, system
from host.checks import INSTALLABLE, OK, STOP, WARNING, Check
from host.docker_engine import Engine
from lib import ROOT

# The whole


@pytest.mark.parametrize(
    ("states", "code"),
    [
        ([OK, WARNING], 0),
        ([OK, INSTALLABLE], 3),
        ([INSTALLABLE, STOP], 1),  # a person comes first: nothing is installed
    ],
)
def test_exit_codes(states, code):
    assert preflight.exit_code([Check("x", "y", "z", state) for state in states]) == code


def test_the_table_and_the_verdict_say_what_to_do():
    checks = [
        Check("compose", "none", "2.26.1", INSTALLABLE, "It is installed"),
        Check("disk", "2 GB", "20 GB", STOP, "Free 18 GB"),
    ]
    assert "-> It is installed" in preflight.table(checks)
    assert "disk: 2 GB. Free 18 GB" in preflight.verdict(checks)
    assert "compose" not in preflight.verdict(checks)


def test_a_taken_port_stops_the_script_and_nothing_is_written(taken, tmp_path):
    before = sorted(ROOT.iterdir())
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "preflight.py"],
        env={**os.environ, "LABEL_STUDIO_PORT": str(taken)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"port {taken}: taken by" in done.stderr
    assert sorted(ROOT.iterdir()) == before


def test_an_engine_whose_client_is_missing_is_a_matter_of_the_installation(monkeypatch):
    """It answers at its socket; what else is to be asked of it waits for the client."""
    engine = Engine("answers", version="28.5.2", root="/")
    monkeypatch.setattr(docker_engine, "find_engine", lambda: engine)
    found = {check.name: check for check in preflight.all_checks(ports=False)}
    assert found["docker client"].found == "none"
    assert found["Docker Engine"].state == OK


def test_another_system_than_linux_is_told_so_and_no_more(monkeypatch, capsys):
    def no_proc(path, *_):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(system, "os_release", dict)
    monkeypatch.setattr(Path, "read_text", no_proc)
    assert preflight.main() == 1
    assert "system: Darwin, " in (said := capsys.readouterr().err)
    assert "use such a machine" in said
