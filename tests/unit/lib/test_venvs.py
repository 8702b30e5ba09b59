"""Virtual environments made from lock files."""

from __future__ import annotations

from lib import commands, venvs


def test_a_virtual_environment_is_made_again_when_its_lock_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(venvs, "ROOT", tmp_path)
    ran = []
    monkeypatch.setattr(commands, "run", lambda command, **_: ran.append(command[0]))
    monkeypatch.setattr(venvs, "index_environment", dict)
    lock, folder = tmp_path / "a.lock", tmp_path / "venv"
    lock.write_text("one")
    folder.mkdir()
    venvs.make(folder, lock, ["pip"])
    venvs.make(folder, lock, ["pip"])
    assert len(ran) == 2
    lock.write_text("two")
    venvs.make(folder, lock, ["pip"])
    assert len(ran) == 4
