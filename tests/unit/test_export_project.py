"""`make export`: a file is written whole or not at all."""

from __future__ import annotations

import pytest

import export_project
from lib.cli import UserError


@pytest.fixture
def exporting(monkeypatch):
    """Has a shell command stand for the container, and returns what it was asked."""

    def exporting(shell):
        asked = []
        monkeypatch.setattr(export_project.compose, "need_env", lambda: None)
        monkeypatch.setattr(export_project.compose, "environment", lambda **more: None)
        monkeypatch.setattr(
            export_project.compose, "command",
            lambda *words: asked.extend(words) or ["sh", "-c", shell],
        )  # fmt: skip
        return asked

    return exporting


def test_what_the_container_prints_becomes_the_file(exporting, tmp_path, capsys):
    asked = exporting("echo 'title: Demo'")
    assert export_project.main(["Demo", str(tmp_path / "demo.yaml")]) == 0
    assert (tmp_path / "demo.yaml").read_text() == "title: Demo\n"
    assert asked[-4:] == ["ls-yolo", "export", "--", "Demo"]
    assert "make apply FILE=demo.yaml ARGS=--diff" in capsys.readouterr().out


def test_a_project_that_cannot_be_exported_leaves_the_file_as_it_was(exporting, tmp_path):
    exporting("echo half; exit 77")
    (tmp_path / "demo.yaml").write_text("mine")
    assert export_project.main(["Demo", str(tmp_path / "demo.yaml")]) == 77
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("words", [[], [""], ["a", "b", "c"]])
def test_an_export_without_a_project_is_told_how(words):
    with pytest.raises(UserError, match="make export PROJECT="):
        export_project.main(words)
