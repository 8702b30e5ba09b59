"""What could not be predicted is kept from run to run."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from contextlib import closing

from ls_yolo.jobs.predicting import Target
from ls_yolo.jobs.quarantine import MAX_TRIES, Quarantine


def opened(folder, run="a", version="m@1", shard=None, project="7.x"):
    return Quarantine(folder, "http://studio", project, version, run, shard)


def failures(kept):
    return list(kept.of(range(3000)))


def test_a_task_is_left_out_once_it_failed_in_too_many_runs(tmp_path):
    for run in range(MAX_TRIES):
        kept = opened(tmp_path, str(run))
        assert kept.left_out([1, 2]) == set()
        kept.fail(1, "damaged")
    kept = opened(tmp_path, "last")
    assert kept.left_out([1, 2]) == {1}
    assert kept.kept() == 1
    (failure,) = failures(kept)
    assert (failure.task, failure.reason, failure.tries) == (1, "damaged", MAX_TRIES)


def test_a_task_that_fails_twice_in_one_run_has_failed_in_one(tmp_path):
    kept = opened(tmp_path)
    for reason in ("first", "second"):
        kept.fail(1, reason)
    (failure,) = failures(kept)
    assert (failure.tries, failure.reason) == (1, "second")


def test_what_is_predicted_after_all_is_forgotten(tmp_path):
    kept = opened(tmp_path)
    for task in range(1200):
        kept.fail(task, "away")
    kept.forget(range(1199))
    assert [one.task for one in failures(kept)] == [1199]


def test_another_version_or_a_project_begun_anew_starts_without_failures(tmp_path):
    for run in range(MAX_TRIES):
        opened(tmp_path, str(run)).fail(1, "damaged")
    assert opened(tmp_path, "z", version="m@2").left_out([1]) == set()
    assert opened(tmp_path, "z", project="7.y").left_out([1]) == set()
    assert opened(tmp_path, "z").left_out([1]) == {1}


def test_a_shard_clears_its_own_alone(tmp_path):
    kept = opened(tmp_path)
    for task in range(6):
        kept.fail(task, "damaged")
    mine = opened(tmp_path, shard=(1, 3))
    assert mine.clear() == 2
    assert [one.task for one in failures(kept)] == [0, 2, 3, 5]


def _fail_many(folder, run, first):
    kept = opened(folder, run)
    for task in range(first, first + 100):
        kept.fail(task, "damaged")


def test_shards_of_one_machine_write_into_one_file_at_the_same_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_fail_many, args=(tmp_path, str(n), 100 * n)) for n in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert len(failures(opened(tmp_path))) == 300


def test_where_the_folder_cannot_be_made_another_place_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").write_text("")
    kept = opened(tmp_path / "file" / "folder")
    kept.fail(1, "damaged")
    found = tmp_path / "ls-yolo" / "quarantine.sqlite"
    assert stat.S_ISREG(found.stat().st_mode)
    assert len(failures(opened(tmp_path / "file" / "folder"))) == 1


def test_who_only_looks_makes_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    kept = opened(tmp_path / "models")
    assert (kept.kept(), failures(kept), kept.left_out([1])) == (0, [], set())
    assert not list(tmp_path.iterdir())
    kept.fail(1, "damaged")
    assert len(failures(opened(tmp_path / "models"))) == len(failures(kept)) == 1


def test_a_damaged_file_is_set_aside_and_costs_no_run(tmp_path, caplog):
    file = tmp_path / "quarantine.sqlite"
    file.write_bytes(b"no database" * 1000)
    kept = opened(tmp_path)
    assert kept.kept() == 0
    kept.fail(1, "damaged")
    assert [one.task for one in failures(kept)] == [1]
    assert "file is not a database" in caplog.text
    assert (tmp_path / "quarantine.damaged").read_bytes() == b"no database" * 1000
    later = opened(tmp_path)
    later.fail(2, "damaged")
    assert [one.task for one in failures(opened(tmp_path))] == [2]


def test_a_file_that_is_damaged_meanwhile_costs_no_run_either(tmp_path):
    kept = opened(tmp_path)
    for task in range(2000):
        kept.fail(task, "damaged")
    file = tmp_path / "quarantine.sqlite"
    with closing(sqlite3.connect(file)) as base:
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = file.read_bytes()
    file.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    kept = opened(tmp_path, "b")
    kept.fail(1, "damaged")
    assert [one.task for one in failures(kept)] == [1]


def test_where_nothing_can_be_written_what_fails_is_known_for_this_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    kept = opened(tmp_path / "file")
    kept.fail(1, "damaged")
    assert len(failures(kept)) == 1


def test_what_fails_with_one_labeling_config_may_not_with_another():
    one, other = (
        Target(7, "Demo", config, born="x").key for config in ("<View/>", "<View> </View>")
    )
    assert one != other
    assert one == Target(7, "Renamed", "<View/>", born="x").key


def _end_early(folder):
    first = opened(folder, "first")
    first.begin([1, 2, 3])
    first.end([2])
    first.begin([4])
    os._exit(9)


def test_tasks_under_way_when_a_process_ended_have_failed_once_and_are_named_once(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_end_early, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    second = opened(tmp_path, "second")
    assert second.suspects() == [1, 3, 4]
    assert second.suspects() == []
    assert [(one.task, one.tries) for one in failures(second)] == [(1, 1), (3, 1), (4, 1)]
    second.begin([1])
    second.end()
    assert opened(tmp_path, "third").suspects() == []
    assert not list(tmp_path.glob("*.alive"))


def test_what_a_run_that_lives_has_under_way_has_not_failed(tmp_path):
    first, second = opened(tmp_path, "first"), opened(tmp_path, "second")
    first.begin([1])
    assert (second.suspects(), failures(second)) == ([], [])
    first.end()
    first.begin([2])
    assert second.suspects() == []
