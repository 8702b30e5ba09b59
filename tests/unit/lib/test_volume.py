"""Files of a folder, out as a tar and back in."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib import volume


def saved(folder: Path, **more: object) -> io.BytesIO:
    out = io.BytesIO()
    volume.save(folder, out, **more)  # type: ignore[arg-type]
    out.seek(0)
    return out


def tree(folder: Path) -> dict[str, object]:
    """Everything in a folder: content, mode and where links lead."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = str(path.readlink())
        else:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(folder))] = (mode, content)
    return found


def restored(source: io.BytesIO, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    volume.stage(folder, source)
    volume.commit(folder)
    return folder


NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in {".", "..", *volume.OURS} and not name.endswith(volume.LOGS))
TREES = st.recursive(
    st.binary(max_size=200) | st.just(b"SQLite format 3\0" + bytes(200)),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def make(folder: Path, content: object) -> None:
    folder.mkdir(parents=True)
    assert isinstance(content, dict)
    for name, inner in content.items():
        if isinstance(inner, dict):
            make(folder / name, inner)
        else:
            (folder / name).write_bytes(inner)


@given(TREES.filter(lambda made: isinstance(made, dict)))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_is_saved_comes_back_as_it_was(tmp_path_factory, content):
    place = tmp_path_factory.mktemp("tree")
    make(place / "from", content)
    assert tree(restored(saved(place / "from"), place / "to")) == tree(place / "from")


def test_modes_times_and_links_come_back(tmp_path):
    source = tmp_path / "from"
    source.mkdir()
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o600)
    (source / "closed").mkdir()
    (source / "closed" / "inner").write_text("y")
    (source / "closed").chmod(0o500)
    (source / "link").symlink_to("/models/yolov8n.pt")
    os.utime(source / "secret", (1_000_000, 1_000_000))
    to = restored(saved(source), tmp_path / "to")
    assert tree(to) == tree(source)
    assert (to / "secret").stat().st_mtime == 1_000_000
    for folder in (source, to):
        (folder / "closed").chmod(0o700)


def test_a_database_is_saved_as_it_is_at_one_moment_while_it_is_written_to(tmp_path):
    source = tmp_path / "from"
    source.mkdir()
    path = source / "db.sqlite3"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.executescript("CREATE TABLE a(n); CREATE TABLE b(n)")
    stop = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, timeout=30)) as opened:
            number = 0
            while not stop.is_set():
                with opened:  # one transaction: both or none
                    opened.execute("INSERT INTO a VALUES (?)", (number,))
                    opened.execute("INSERT INTO b VALUES (?)", (number,))
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for attempt in range(5):
            to = restored(saved(source), tmp_path / f"to{attempt}")
            assert [p.name for p in to.iterdir()] == ["db.sqlite3"], "no log beside it"
            with closing(sqlite3.connect(to / "db.sqlite3")) as opened:
                (one,) = opened.execute("SELECT count(*) FROM a").fetchone()
                (two,) = opened.execute("SELECT count(*) FROM b").fetchone()
                assert one == two
                assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        stop.set()
        writer.join()


def test_databases_come_before_the_files_that_they_may_name(tmp_path):
    (tmp_path / "a-file").write_text("x")
    with closing(sqlite3.connect(tmp_path / "z.sqlite3")) as made:
        made.execute("CREATE TABLE t(n)")
    with tarfile.open(fileobj=saved(tmp_path)) as tar:
        assert tar.getnames() == ["z.sqlite3", "a-file"]


def test_what_is_left_out_is_not_there_and_not_counted(tmp_path):
    for name in ("models/openvino/big.bin", "models/kept.json", ".start.lock", ".backup.sqlite3"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100)
    with tarfile.open(fileobj=saved(tmp_path, leave_out=["models/openvino"])) as tar:
        assert tar.getnames() == ["models", "models/kept.json"]
    assert volume.size(tmp_path, ["models/openvino"]) == 100


def test_links_are_what_they_lead_to_where_that_is_asked_for(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights.pt").write_bytes(b"weights")
    source = tmp_path / "from"
    source.mkdir()
    (source / "own.pt").symlink_to(tmp_path / "elsewhere" / "weights.pt")
    (source / "more").symlink_to(tmp_path / "elsewhere")
    to = restored(saved(source, follow=True), tmp_path / "to")
    assert (to / "own.pt").read_bytes() == (to / "more" / "weights.pt").read_bytes() == b"weights"
    assert not any(path.is_symlink() for path in to.rglob("*"))


def test_a_link_that_leads_nowhere_or_in_a_circle_is_named(tmp_path):
    (tmp_path / "own.pt").symlink_to(tmp_path / "gone.pt")
    with pytest.raises(volume.VolumeError, match=r"own\.pt: a link that leads nowhere"):
        volume.save(tmp_path, io.BytesIO(), follow=True)
    (tmp_path / "own.pt").unlink()
    (tmp_path / "circle").symlink_to(tmp_path)
    with pytest.raises(volume.VolumeError, match="circle: a link to a folder that it lies in"):
        volume.save(tmp_path, io.BytesIO(), follow=True)


def test_staging_changes_nothing_until_it_is_committed(tmp_path):
    source, to = tmp_path / "from", tmp_path / "to"
    make(source, {"new": b"new"})
    make(to, {"old": b"old"})
    volume.stage(to, saved(source))
    assert (to / "old").read_bytes() == b"old" and not (to / "new").exists()
    volume.discard(to)
    assert tree(to) == {"old": (0o644, b"old")}


def test_what_is_mounted_in_it_could_not_give_way_so_nothing_is_staged(tmp_path, monkeypatch):
    (tmp_path / "nas").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "nas")
    with pytest.raises(volume.VolumeError, match=r"nas: is mounted there.*Unmount it"):
        volume.stage(tmp_path, io.BytesIO())
    assert [path.name for path in tmp_path.iterdir()] == ["nas"]


def test_half_of_a_restore_is_not_saved(tmp_path):
    (tmp_path / volume.STAGED).mkdir()
    (tmp_path / volume.STAGED / "phase").write_text("in")
    with pytest.raises(volume.VolumeError, match="a restore is half done there"):
        volume.save(tmp_path, io.BytesIO())


def test_a_database_where_nobody_can_write_is_saved_as_it_lies_there(tmp_path, monkeypatch):
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE t (a)")
    whole = (tmp_path / "a.db").read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    out = io.BytesIO()
    volume.save(tmp_path, out)
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        assert tar.extractfile("a.db").read() == whole


def test_what_is_staged_is_no_part_of_a_backup(tmp_path):
    make(tmp_path / "to", {"old": b"old"})
    volume.stage(tmp_path / "to", saved(tmp_path / "to"))
    with tarfile.open(fileobj=saved(tmp_path / "to")) as tar:
        assert tar.getnames() == ["old"]


def test_what_gave_way_is_kept_where_that_is_asked_for_but_once(tmp_path):
    source, to = tmp_path / "from", tmp_path / "to"
    make(source, {"new": b"new"})
    make(to, {"mine.pt": b"mine"})
    for kept in ({"mine.pt": b"mine"}, {"new": b"new"}):
        volume.stage(to, saved(source))
        volume.commit(to, keep=True)
        assert {p.name: p.read_bytes() for p in (to / volume.REPLACED).iterdir()} == kept
    assert sorted(p.name for p in to.iterdir()) == [volume.REPLACED, "new"]


KILLED_AT = """
import os, sys
from pathlib import Path
from lib import volume
left = int(sys.argv[2])
def counted(name, before):
    def call(*args, **more):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return before(*args, **more)
    return call
for name in ("rename", "replace", "mkdir", "unlink"):
    setattr(Path, name, counted(name, getattr(Path, name)))
os.unlink = counted("unlink", os.unlink)
os.rmdir = counted("rmdir", os.rmdir)
volume.commit(Path(sys.argv[1]), keep=sys.argv[3] == "keep")
"""


@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_a_commit_that_is_killed_anywhere_goes_on_from_there(tmp_path, keep):
    new = {"a": b"new", "b": {"c": b"new"}, "d": b"new"}
    old = {"a": b"old", "b": {"x": b"old"}, "e": b"old"}
    make(tmp_path / "from", new)
    tar = saved(tmp_path / "from").getvalue()
    env = {**os.environ, "PYTHONPATH": str(Path(volume.__file__).parents[1])}
    for steps in range(60):
        to = tmp_path / f"{keep}{steps}"
        make(to, old)
        volume.stage(to, io.BytesIO(tar))
        command = [sys.executable, "-c", KILLED_AT, str(to), str(steps), keep]
        code = subprocess.run(command, env=env).returncode
        volume.commit(to, keep=keep == "keep")
        found = {n: v for n, v in tree(to).items() if not n.startswith(volume.REPLACED)}
        assert found == tree(tmp_path / "from"), f"killed after {steps} steps"
        if code == 0:
            break
    assert code == 0 and steps > 8


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "link/out"])
def test_nothing_is_written_outside(tmp_path, name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
        tar.addfile(link)
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    out.seek(0)
    (tmp_path / "outside").mkdir()
    to = tmp_path / "to"
    make(to, {"old": b"old"})
    with pytest.raises(volume.VolumeError, match="the archive has"):
        volume.stage(to, out)
    volume.discard(to)
    assert tree(to) == {"old": (0o644, b"old")}
    assert not any((tmp_path / "outside").iterdir()) and not (tmp_path / "out").exists()


def test_a_tar_that_is_cut_off_stages_nothing(tmp_path):
    make(tmp_path / "from", {"a": b"x" * 5000})
    tar = saved(tmp_path / "from").getvalue()
    to = tmp_path / "to"
    make(to, {"old": b"old"})
    with pytest.raises(volume.VolumeError, match="cannot be read"):
        volume.stage(to, io.BytesIO(tar[:3000]))
    assert tree(to) == {"old": (0o644, b"old")}


def test_as_a_program_it_says_what_is_wrong_in_one_line(tmp_path):
    command = [sys.executable, volume.__file__, "size", str(tmp_path)]
    (tmp_path / "own.pt").write_bytes(b"12345")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "5\n"
    (tmp_path / "gone.pt").symlink_to("nowhere")
    done = subprocess.run([*command, "--follow"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "leads nowhere" in done.stderr
