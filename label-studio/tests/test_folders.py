"""Looks at folders, without Label Studio."""

import os
from pathlib import Path

from ls_kit import folders


def test_a_file_that_can_be_read_is_found_also_below(tmp_path):
    (tmp_path / "cam1" / "day").mkdir(parents=True)
    assert folders.first_file(tmp_path) == ("", "")
    (tmp_path / "cam1" / "day" / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert folders.first_file(tmp_path) == ("", "")
    (tmp_path / "cam1" / "day" / "b.jpg").touch()
    assert folders.first_file(tmp_path) == (str(tmp_path / "cam1/day/b.jpg"), "")


def test_what_keeps_files_from_being_read_is_told(tmp_path):
    file, error = folders.first_file(tmp_path / "away")
    assert file == ""
    assert error.endswith("away: No such file or directory")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    file, error = folders.first_file(tmp_path)
    assert (file, error) == ("", f"{tmp_path}/gone.jpg: No such file or directory")


def test_disks_that_are_not_there_are_left_out(tmp_path):
    (found,) = folders.disks([tmp_path, Path("/nowhere")])
    assert found["path"] == str(tmp_path)
    assert 0 < found["free"] <= found["total"]
