"""What a backup is called, what stays, and what a restore refuses."""

from __future__ import annotations

import argparse
import io

import pytest
from prometheus_client.parser import text_string_to_metric_families

import backup
import compose
import restore
from host import restoring, volumes
from lib import archive, backups, docker, files, settings, staging, versions, volume
from lib.cli import UserError
from lib.progress import Progress, readable

VALUES = {s["name"]: s["default"] for s in settings.declared()} | {"COMPOSE_PROJECT_NAME": "mine"}
ABOUT = {"label_studio": "1.23.2", "kit": "0.1.0", "database": backups.LITE}


def test_the_newest_of_this_installation_stay_and_nobody_elses_go(tmp_path):
    mine = [
        f"mine-2026010{day}T000000Z.tar.gz{end}" for day, end in enumerate(("", ".gpg", ".age"))
    ]
    others = [
        "mine-too-20260101T000000Z.tar.gz",
        "mine-notes.txt",
        "mine-20260101T000000Z.tar.gz.sig",
    ]
    for name in [*mine, *others]:
        (tmp_path / name).touch()
    backups.remove_old(tmp_path, "mine", keep=0)
    assert len(list(tmp_path.iterdir())) == 6
    backups.remove_old(tmp_path, "mine", keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {*mine[1:], *others}


def test_what_a_killed_run_left_goes_with_the_next_one(tmp_path):
    for name in (".mine-20260101T000000Z.tar.gz.part", ".theirs-1.part", "mine-1.tar.gz"):
        (tmp_path / name).touch()
    with files.appearing(tmp_path / "mine-20260104T000000Z.tar.gz"):
        backups.ready(tmp_path, "mine")  # another run is at work
        assert (tmp_path / ".mine-20260104T000000Z.tar.gz.part").exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        ".theirs-1.part", "mine-1.tar.gz", "mine-20260104T000000Z.tar.gz",
    }  # fmt: skip


def test_its_folder_is_for_its_owner_alone(tmp_path):
    folder = backups.ready(tmp_path / "new" / "backups", "mine")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: .*Name another folder"):
        backups.ready(tmp_path / "file", "mine")


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"are free, up to 1000000 GB are needed\. Make room"):
        backups.check_space(tmp_path, 10**15)


@pytest.mark.parametrize("text", ["0", "-1", "many", ""])
def test_how_many_stay_is_a_number(text, capsys):
    with pytest.raises(SystemExit) as ended:
        backup.parser().parse_args(["--keep", text])
    assert ended.value.code == 2
    assert f"found {text!r}, expected how many to keep" in capsys.readouterr().err


def test_prometheus_is_told_when_the_last_backup_was_whole():
    found = {
        family.name: family.samples
        for family in text_string_to_metric_families(backup.metrics("mine", 1234567.8, 99))
    }
    (when,) = found["ls_yolo_backup_last_success_timestamp_seconds"]
    assert (when.value, when.labels) == (1234567, {"project": "mine"})
    assert found["ls_yolo_backup_size_bytes"][0].value == 99


@pytest.mark.parametrize(
    ("name", "said"),
    [("backup.txt", r"expected a name that ends in \.prom"), ("no/x.prom", "No such file")],
)
def test_a_file_for_prometheus_that_cannot_be_is_told_before_the_work(
    tmp_path, monkeypatch, name, said
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        backup.metrics_file(name)


def test_a_newer_label_studio_is_refused_with_the_version_that_can(monkeypatch):
    monkeypatch.setattr(versions, "label_studio", lambda: "1.23.2")
    restore.refuse(ABOUT, VALUES)
    restore.refuse({**ABOUT, "label_studio": "1.22.0"}, VALUES)
    newer = {**ABOUT, "label_studio": "1.24.0", "kit": "0.3.0"}
    with pytest.raises(UserError, match=r"Label Studio 1\.24\.0.*\n?.*Check out version 0\.3\.0"):
        restore.refuse(newer, VALUES)


def test_postgresql_does_not_go_into_sqlite_but_the_other_way():
    with pytest.raises(UserError, match="Restore it with POSTGRES=1"):
        restore.refuse({**ABOUT, "database": backups.POSTGRES}, VALUES)
    restore.refuse(ABOUT, {**VALUES, "POSTGRES": "1"})


def test_the_lock_file_names_the_label_studio_of_the_image():
    assert versions.label_studio() in (versions.ROOT / "label-studio" / "Dockerfile").read_text()


def test_parts_of_this_host_are_saved_with_what_their_links_lead_to():
    named = {part.name: part for part in volumes.parts(VALUES, datasets=True)}
    assert list(named) == ["label-studio", "backend", "models", "projects", "datasets"]
    assert "datasets" not in [part.name for part in volumes.parts(VALUES)]
    assert named["models"].command("save")[-1] == "--follow"
    assert named["models"].command("commit")[-1] == "--keep"
    assert named["label-studio"].where == "mine_label-studio-data"


def test_a_half_done_restore_is_no_time_for_a_backup(monkeypatch, tmp_path):
    monkeypatch.setattr(restoring, "journal", lambda _: tmp_path / "journal")
    restoring.begin(VALUES, "a.tar.gz", [], postgres=False)
    monkeypatch.setattr(backup.compose, "need_env", lambda: None)
    with pytest.raises(UserError, match=r"a restore is half done\. Run make up"):
        backup.make(backup.Wanted(tmp_path))


@pytest.mark.parametrize(
    "words", [("--progress", "quiet", "up", "-d"), ("run", "setup"), ("start",)]
)
def test_nothing_is_started_on_data_of_which_half_are_restored(monkeypatch, tmp_path, words):
    monkeypatch.setattr(restoring, "journal", lambda _: tmp_path / "journal")
    restoring.begin(VALUES, "a.tar.gz", [], postgres=False)
    monkeypatch.setattr(compose, "need_env", lambda: None)
    with pytest.raises(UserError, match="a restore is half done"):
        compose.main(words)


def test_a_restore_that_was_begun_is_finished_and_only_once(monkeypatch, tmp_path):
    models, projects = tmp_path / "models", tmp_path / "projects"
    values = {**VALUES, "MODELS_DIR": str(models), "PROJECTS_DIR": str(projects)}
    for folder in (models, projects):
        folder.mkdir()
        (folder / "old").touch()
        out = io.BytesIO()
        source = tmp_path / f"of-{folder.name}"
        source.mkdir()
        (source / "new").touch()
        volume.save(source, out)
        out.seek(0)
        volume.stage(folder, out)
    monkeypatch.setattr(restoring, "journal", lambda _: tmp_path / "journal")
    monkeypatch.setattr(docker, "containers", lambda *_, **__: [])
    assert not restoring.finish(values)
    restoring.begin(values, "a.tar.gz", ["models", "projects"], postgres=False)
    assert restoring.begun(values) == "a.tar.gz"
    assert (models / "old").exists()
    assert restoring.finish(values)
    for folder in (models, projects):
        assert {p.name for p in folder.iterdir()} == {"new", volume.REPLACED}
    assert not restoring.finish(values)


def test_an_archive_without_its_settings_is_refused(tmp_path):
    path = tmp_path / "a.tar.gz"
    with path.open("wb") as out:
        writer = archive.Writer(out, ABOUT)
        writer.finish()
    with pytest.raises(UserError, match="its settings are not there"):
        staging.first_look(path, (None, None))
    with pytest.raises(UserError, match="holds no database"):
        backup.verify(path, None, None)


def test_progress_is_for_terminals_alone():
    out = io.StringIO()
    bar = Progress(100, out)
    bar.advance(50, "models")
    bar.close()
    assert out.getvalue() == ""
    out.isatty = lambda: True
    bar = Progress(100, out)
    bar.advance(50, "models")
    assert "50% 50 B models" in out.getvalue()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (25_000, "25 kB"), (2_500_000, "2.5 MB"),
                       (10**12, "1000 GB")],
)  # fmt: skip
def test_sizes_are_written_for_people(size, text):
    assert readable(size) == text
