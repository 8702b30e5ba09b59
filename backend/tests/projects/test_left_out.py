"""Files of a folder that become no task are told, in a line a kind."""

from __future__ import annotations

import os

from ls_yolo.projects.config import IMAGES
from ls_yolo.projects.left_out import left_out


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def test_formats_that_regex_leaves_out_are_counted_in_one_line(tmp_path):
    touch(tmp_path, "a.jpg", "b.AVIF", "c.avif", "d.heic", "._a.jpg", "note", "sub/e.gif")
    (line,) = left_out(tmp_path, IMAGES, False)
    said, _, listed = line.partition(": ")
    assert said == "5 files are no tasks, since storage.regex leaves out"
    assert sorted(listed.split(", ")) == ["1 ._*", "1 .heic", "1 without a suffix", "2 .avif"]
    assert "1 .gif" in next(left_out(tmp_path, IMAGES, True))


def test_a_folder_of_images_alone_says_nothing(tmp_path):
    touch(tmp_path, "a.jpg", "b.PNG", "sub/note.txt")
    assert list(left_out(tmp_path, IMAGES, False)) == []


def test_names_that_are_no_utf8_are_named(tmp_path):
    touch(tmp_path, "a.jpg")
    touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    assert list(left_out(tmp_path, IMAGES, False)) == [
        "1 files are left out, since their names are not UTF-8: 'caf\\xe9.jpg'; rename them"
    ]
