"""The cache of OpenVINO's exports: whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.engines import export
from ls_yolo.engines.export import Exporter, ExportError
from ls_yolo.engines.network import Network

VERSIONS = {"openvino": "1", "torch": "2", "ultralytics": "3"}
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
NETWORK = Network({0: "person"}, "pose", 640, 32, keypoints=(17, 3))


def make(folder):
    """Stands in for ultralytics and OpenVINO."""
    (folder / "model.xml").write_text("<net/>")
    (folder / "model.bin").write_bytes(bytes(1000))
    (folder / "weights.pt").write_bytes(b"left over")
    (folder / "more").mkdir()
    return NETWORK.manifest()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "data" / "openvino"


def left(cache):
    return sorted(path.name for path in cache.iterdir())


@given(HASHES, HASHES, st.sampled_from([None, 320, 640]), st.sampled_from([None, 320, 640]))
def test_a_key_changes_with_weights_and_size_and_nothing_else(first, second, size, other):
    same = (first, size) == (second, other)
    assert (export.key(first, size, VERSIONS) == export.key(second, other, VERSIONS)) == same


@pytest.mark.parametrize("name", VERSIONS)
def test_a_key_changes_with_the_version_of_what_makes_the_export(name):
    assert export.key("a", None, VERSIONS) != export.key("a", None, {**VERSIONS, name: "new"})


def test_what_is_written_is_found(cache):
    export.write(cache, "k", make)
    found = export.find(cache, "k")
    assert found is not None
    assert found.model.read_text() == "<net/>"
    assert found.network == NETWORK


def test_only_what_is_needed_is_kept(cache):
    export.write(cache, "k", make)
    assert left(cache / "k") == ["manifest.json", "model.bin", "model.xml"]
    assert left(cache) == ["k", "lock"]


def test_nothing_is_found_in_a_cache_that_is_not_there(cache, caplog):
    assert export.find(cache, "k") is None
    assert not caplog.records


def test_what_is_there_is_not_made_again(cache):
    export.write(cache, "k", make)
    export.write(cache, "k", lambda folder: pytest.fail("made again"))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "weights cut off": lambda folder: cut_off(folder / "model.bin"),
    "network cut off": lambda folder: cut_off(folder / "model.xml"),
    "weights changed": lambda folder: (folder / "model.bin").write_bytes(b"1" * 1000),
    "weights missing": lambda folder: (folder / "model.bin").unlink(),
    "manifest empty": lambda folder: (folder / "manifest.json").write_text(""),
    "manifest of another kind": lambda folder: (folder / "manifest.json").write_text("[]"),
    "manifest incomplete": lambda folder: (folder / "manifest.json").write_text(
        json.dumps({"files": {}})
    ),
    "manifest binary": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_export_is_not_found_and_is_made_anew(cache, damage, caplog):
    export.write(cache, "k", make)
    DAMAGES[damage](cache / "k")
    assert export.find(cache, "k") is None
    assert "damaged, so it is made anew" in caplog.text
    export.write(cache, "k", make)
    assert export.find(cache, "k") is not None


def test_an_export_that_fails_leaves_the_cache_as_it_was(cache):
    export.write(cache, "k", make)

    def fail(folder):
        make(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        export.write(cache, "other", fail)
    assert left(cache) == ["k", "lock"]


def test_what_a_killed_process_left_is_removed(cache):
    (cache / ".making-abc").mkdir(parents=True)
    (cache / ".making-abc" / "model.bin").write_bytes(bytes(10))
    export.write(cache, "k", make)
    assert left(cache) == ["k", "lock"]


def test_of_several_at_once_one_makes_it_and_nobody_sees_half_of_it(cache):
    made, seen = [], []
    start = threading.Barrier(4)

    def slowly(folder):
        made.append(folder)
        (folder / "model.xml").write_text("<net/>")
        time.sleep(0.1)
        seen.append(export.find(cache, "k"))
        return make(folder)

    def run():
        start.wait(10)
        export.write(cache, "k", slowly)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 1
    assert seen == [None]
    assert export.find(cache, "k") is not None


def test_an_export_that_nobody_has_used_for_long_goes_and_one_in_use_stays(cache):
    for name in ("old", "used"):
        export.write(cache, name, make)
        long_ago = time.time() - export.UNUSED - 60
        os.utime(cache / name, (long_ago, long_ago))
    assert export.find(cache, "used") is not None
    export.write(cache, "new", make)
    assert left(cache) == ["lock", "new", "used"]


def test_a_folder_that_cannot_be_made_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        export.write(tmp_path / "file" / "openvino", "k", make)


# The process that makes it. Here, without torch, it fails; tests/integration lets it succeed.


def test_the_process_says_why_it_failed(tmp_path):
    (tmp_path / "file").write_text("")
    exporter = Exporter(tmp_path / "a.pt", "0" * 64, tmp_path / "file", None)
    with pytest.raises(ExportError, match=r"(FileExists|PackageNotFound)Error: .+"):
        exporter.run()


def test_a_process_that_was_stopped_before_it_began_does_not_begin(tmp_path):
    exporter = Exporter(tmp_path / "a.pt", "0" * 64, tmp_path, None)
    exporter.stop()
    with pytest.raises(ExportError, match="stopped"):
        exporter.run()


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.02, 1), st.booleans())
def test_a_score_that_is_wrong_is_seen_beside_coordinates_of_hundreds(channels, places, off, plus):
    one = np.full((1, channels + 1, places), 640.0, np.float32)
    one[:, -1] = 0.5
    other = one.copy()
    other[0, -1, -1] += off if plus else -off
    assert export.apart(one, one) == 0
    assert export.apart(one, other) == pytest.approx(off, rel=1e-3)
    other = one + np.array([0.01] * channels + [0], np.float32)[None, :, None]
    assert export.apart(one, other) < 0.001
