"""A backup in one file."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import archive, volume
from lib.cli import UserError

ABOUT = {"kit": "0.1.0", "made": "2026-01-01T00:00:00+00:00"}


def tar_of(**files: bytes) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "folder"
        tar.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o640
            tar.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def written(path: Path, **files: bytes) -> Path:
    with path.open("wb") as out:
        writer = archive.Writer(out, ABOUT)
        writer.add_tar("part", tar_of(**files))
        writer.finish()
    return path


def read(path: Path) -> dict[str, bytes | None]:
    with archive.reading(path) as reader:
        assert reader.about == {"format": archive.FORMAT, **ABOUT}
        found = {
            f"{part}/{name}": data.read() if data else None
            for part, name, _, data in reader.members()
        }
        assert reader.whole
    return found


def test_what_is_written_is_read_back_with_what_it_says_of_itself(tmp_path):
    path = written(tmp_path / "a.tar.gz", one=b"1", two=b"2" * 100_000)
    assert read(path) == {
        "part/folder": None, "part/link": None, "part/one": b"1", "part/two": b"2" * 100_000,
    }  # fmt: skip


def test_a_name_that_is_no_utf_8_comes_back_as_it_was(tmp_path):
    source = tmp_path / "from"
    source.mkdir()
    name = os.fsdecode(b"caf\xe9.jpg")
    (source / name).write_bytes(b"x")
    out = io.BytesIO()
    volume.save(source, out)
    out.seek(0)
    path = tmp_path / "a.tar.gz"
    with path.open("wb") as file:
        writer = archive.Writer(file, ABOUT)
        writer.add_tar("part", out)
        writer.finish()
    back = io.BytesIO()
    with archive.reading(path) as reader, tarfile.open(fileobj=back, mode="w|") as tar:
        for _, inner, member, data in reader.members():
            member.name, member.pax_headers = inner, {}
            tar.addfile(member, data)
    back.seek(0)
    to = tmp_path / "to"
    to.mkdir()
    volume.stage(to, back)
    volume.commit(to)
    assert [os.fsencode(path.name) for path in to.iterdir()] == [b"caf\xe9.jpg"]


def test_any_tar_can_look_into_it(tmp_path):
    path = written(tmp_path / "a.tar.gz", one=b"1")
    with tarfile.open(path) as tar:
        first, *_, last = tar.getnames()
        assert (first, last) == (archive.HEAD, archive.TAIL)
        data = tar.extractfile(archive.TAIL)
        assert data is not None
        assert json.loads(data.read())["part/one"]["size"] == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "a.tar.gz"
    return written(path, one=bytes(range(256)) * 40, two=b"2").read_bytes()


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_that_is_cut_off_anywhere_is_refused(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("cut") / "a.tar.gz"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError):
        read(path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_that_was_changed_anywhere_is_refused_or_reads_as_before(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("changed") / "a.tar.gz"
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    try:
        found = read(path)
    except (UserError, AssertionError):
        return
    # Bytes that say nothing: gzip's time and system.
    assert found["part/one"] == bytes(range(256)) * 40 and found["part/two"] == b"2"


def test_something_else_is_told_from_a_backup(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"no archive at all")
    with pytest.raises(UserError, match=r"a\.tar\.gz: no backup of this kit"):
        read(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("theirs"))
    with pytest.raises(UserError, match=r"no backup of this kit: its first file is no manifest"):
        read(path)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none.tar.gz")


def test_one_of_a_newer_kit_names_it(tmp_path):
    path = tmp_path / "a.tar.gz"
    with path.open("wb") as out:
        writer = archive.Writer(out, {**ABOUT, "format": 2, "kit": "9.0.0"})
        writer.finish()
    with pytest.raises(UserError, match=r"found format 2, expected 1: made by version 9\.0\.0"):
        read(path)


@pytest.mark.parametrize(
    ("first", "by_passphrase"),
    [
        (b"\x8c", True),
        (b"\xc3", True),
        (b"\x85", False),
        (b"\xc1", False),
        (b"age", False),
        (b"", False),
    ],
)
def test_whether_a_passphrase_is_the_key_is_seen_by_the_first_byte(tmp_path, first, by_passphrase):
    (tmp_path / "a").write_bytes(first)
    with (tmp_path / "a").open("rb") as file:
        assert archive._by_passphrase(file) is by_passphrase
        assert file.read() == first


def test_where_the_passphrase_is_wanted_it_is_said_how_to_give_it(tmp_path):
    path = tmp_path / "a.tar.gz.gpg"
    path.write_bytes(b"\x8c and more")
    with pytest.raises(UserError, match=r"encrypted by a passphrase.*PASSPHRASE_FILE=FILE"):
        read(path)


def test_what_encrypts_follows_from_the_recipient():
    assert archive.Lock().ending == ""
    assert archive.Lock(recipient="age1abc").ending == ".age"
    assert archive.Lock(recipient="ann@example.com").ending == ".gpg"
    assert archive.Lock(Path("secret")).ending == ".gpg"


def test_a_lock_that_cannot_be_used_is_told_before_anything_is_written(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(UserError, match="its first line is empty"):
        archive.Lock(empty).command()
    with pytest.raises(UserError, match=r"PASSPHRASE_FILE: .*No such file"):
        archive.Lock(tmp_path / "none").command()
    with pytest.raises(UserError, match="expected one of them"):
        archive.Lock(empty, "age1abc").command()
    with pytest.raises(UserError, match="IDENTITY=FILE"):
        archive.key_command(tmp_path / "a.tar.gz.age", None, None)


def test_a_program_that_is_missing_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for recipient, package in (("ann@example.com", "gnupg"), ("age1abc", "age")):
        with pytest.raises(UserError, match=f"sudo apt install {package}"):
            archive.Writer(io.BytesIO(), ABOUT, archive.Lock(recipient=recipient))
