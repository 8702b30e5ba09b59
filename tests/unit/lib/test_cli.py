"""How a script ends."""

from __future__ import annotations

import errno

import pytest

from lib.cli import run_main


def test_a_file_of_root_is_one_line_and_no_traceback(capsys):
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "/a/b c")

    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: /a/b c: permission denied")
    assert said.endswith("sudo chown -R \"$USER\" '/a/b c'\n")
