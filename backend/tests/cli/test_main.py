"""The command line as a whole: help, wrong words, pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ls_yolo
from ls_yolo.cli import main, models

COMMANDS = ("apply", "check", "doctor", "labels", "models", "predict", "weights")


def test_every_command_is_in_the_help_and_has_its_own(capsys):
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in shown
        assert main.main([command, "--help"]) == 0


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from ls_yolo.cli import main; main.main(['predict', '--help'])\n"
        "heavy = {'cv2', 'numpy', 'torch', 'httpx', 'label_studio_sdk', 'jsonschema', 'flask'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(ls_yolo.__file__).parent.parent)},
    )  # fmt: skip
    assert done.stderr == "[]\n"


@pytest.mark.parametrize(
    "words", [[], ["predict"], ["weights", "look"], ["models", "--yaml"], ["labels"], ["nothing"]]
)
def test_wrong_words_are_one_line_and_end_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(words)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ") and not shown.out


def test_a_command_that_is_stopped_says_so_and_ends_with_130(monkeypatch, capsys):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "known", stop)
    assert main.main(["models"]) == 130
    assert "safe to run the same command again" in capsys.readouterr().err


def test_a_row_is_a_line_in_a_pipe_however_narrow_the_terminal_was(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    row = {"name": "m" * 60, "version": "v" * 60, "classes": ["c" * 60], "state": "[red]x[/red]"}
    monkeypatch.setattr(models, "known", lambda: ("here", [row]))
    assert main.main(["models"]) == 0
    _, _, line = capsys.readouterr().out.splitlines()
    assert line == f"{'m' * 60}  {'v' * 60}  [red]x[/red]  {'c' * 60}  -       -"
