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


def test_of_a_large_folder_no_more_is_read_than_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LOOKED_AT", 20)
    for number in range(100):
        (tmp_path / "many" / os.fsdecode(b"%d\xe9.jpg" % number)).parent.mkdir(exist_ok=True)
        (tmp_path / "many" / os.fsdecode(b"%d\xe9.jpg" % number)).touch()
    read = set()
    entries = folders._entries
    monkeypatch.setattr(
        folders, "_entries", lambda *words: (read.add(one.path) or one for one in entries(*words))
    )
    file, error = folders.first_file(tmp_path)
    assert file == ""
    assert "no file was found among its first 20 entries" in error
    assert len(read) == 21


def test_a_folder_of_many_folders_is_entered_at_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "LOOKED_AT", 5)
    for number in range(50):
        (tmp_path / f"day{number}").mkdir()
        (tmp_path / f"day{number}" / "a.jpg").touch()
    file, error = folders.first_file(tmp_path)
    assert (file[-6:], error) == ("/a.jpg", "")


def test_a_folder_that_takes_too_long_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SECONDS", -1)
    (tmp_path / "a.jpg").touch()
    assert folders.first_file(tmp_path)[1].endswith("or in time")


def test_disks_that_are_not_there_are_left_out(tmp_path):
    (found,) = folders.disks([tmp_path, Path("/nowhere")])
    assert found["path"] == str(tmp_path)
    assert 0 < found["free"] <= found["total"]
