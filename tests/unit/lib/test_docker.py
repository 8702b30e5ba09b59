"""Which docker client is used."""

from __future__ import annotations

import os
from pathlib import Path

from lib import docker


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
