"""Files are written whole or not at all."""

from __future__ import annotations

import pytest

from ls_yolo import files


def test_a_file_that_is_written_takes_the_place_of_the_old_one(tmp_path):
    for content in ("old", b"new"):
        files.write(tmp_path / "a.json", content)
    assert (tmp_path / "a.json").read_bytes() == b"new"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_nothing_beside(tmp_path):
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
