"""A class that writes beside itself may, and what it writes hides nothing of the user's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ls_yolo.user_model import workspace
from tests.user_model.classes import HEAD, ask, predictor

WRITES = (
    HEAD
    + """
import os
from pathlib import Path
from beside_helper import word

HERE, ROOT = Path(__file__).resolve().parent, Path(os.environ["MODEL_ROOT"])
os.makedirs("cache_dir", exist_ok=True)          # at import, as joblib's Memory does
(ROOT / "downloaded.pt").write_text("weights")   # as ultralytics does

class NewModel(LabelStudioMLBase):
    def predict(self, tasks, context=None, **kwargs):
        with open("cache_dir/seen", "a") as file:
            file.write("x")
        (HERE / "debug.jpg").write_bytes(b"picture")
        with open("weights/last.pt", "w") as file:
            file.write(open("weights/best.pt").read())
        return [{"result": [], "word": word} for task in tasks]
"""
)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "models"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "best.pt").write_text("user's")
    (folder / "beside_helper.py").write_text("word = 'beside'")
    return folder


def seen(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*")}


def test_a_class_that_writes_beside_itself_starts_predicts_and_writes_nothing_to_the_models(
    serve, root, tasks, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "beside_helper", raising=False)
    (root / "writes.py").write_text(WRITES)
    before = seen(root)
    client, _ = serve(WRITES, module="writes", kept=tmp_path / "kept")
    assert ask(client, tasks(1))[0]["word"] == "beside"
    work = tmp_path / "kept" / "model-py"
    assert Path.cwd() == work
    for name in ("cache_dir/seen", "debug.jpg", "downloaded.pt"):
        assert (work / name).is_file(), name
    assert (work / "weights" / "last.pt").read_text() == "user's"
    assert seen(root) == before


def test_what_was_written_is_there_after_a_restart_and_changed_files_are_seen(root, tmp_path):
    work = workspace.make(root, tmp_path)
    (work / "cache_dir").mkdir()
    (work / "cache_dir" / "a").write_text("cached")
    (root / "beside_helper.py").write_text("word = 'new'")
    (root / "weights" / "best.pt").unlink()
    (root / "weights" / "other.pt").write_text("other")
    assert workspace.make(root, tmp_path) == work
    assert (work / "cache_dir" / "a").read_text() == "cached"
    assert (work / "beside_helper.py").read_text() == "word = 'new'"
    assert [path.name for path in (work / "weights").iterdir()] == ["other.pt"]
    (root / "beside_helper.py").unlink()
    workspace.make(root, tmp_path)
    assert not (work / "beside_helper.py").exists()


@pytest.mark.parametrize("written", ["file", "folder"])
def test_a_file_that_was_written_hides_none_of_the_users_and_is_kept_aside(root, tmp_path, written):
    work = workspace.make(root, tmp_path)
    for number in (1, 2):
        place = work / "late.pt"
        place.unlink(missing_ok=True)
        if written == "file":
            place.write_text(f"written {number}")
        else:
            place.mkdir()
        (root / "late.pt").write_text("user's")
        workspace.make(root, tmp_path)
        assert place.read_text() == "user's"
        assert (work / "late.pt.written").exists()


def test_weights_that_the_class_has_put_in_place_of_the_users_are_kept_aside(root, tmp_path):
    work = workspace.make(root, tmp_path)
    (work / "trained").write_text("trained")
    (work / "trained").replace(work / "weights" / "best.pt")
    workspace.make(root, tmp_path)
    assert (work / "weights" / "best.pt").read_text() == "user's"
    assert (work / "weights" / "best.pt.written").read_text() == "trained"


def test_a_start_that_changes_nothing_touches_nothing(root, tmp_path):
    work = workspace.make(root, tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in work.rglob("[!.]*.p*")}
    workspace.make(root, tmp_path)
    assert {path: path.lstat().st_mtime_ns for path in work.rglob("[!.]*.p*")} == before


def test_packages_are_seen_whole_and_nothing_hidden_is(root, tmp_path):
    (root / "packages" / "lap").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text("")
    work = workspace.make(root, tmp_path)
    assert (work / "packages").is_symlink() and (work / "packages" / "lap").is_dir()
    assert not (work / ".git").exists()


def test_without_a_folder_to_keep_it_in_a_class_writes_until_the_backend_stops(
    root, tmp_path, caplog
):
    (tmp_path / "file").write_text("")
    work = workspace.make(root, tmp_path / "file")
    assert (work / "weights" / "best.pt").read_text() == "user's"
    assert "what the class writes is lost with the container" in caplog.text


def test_a_setting_that_is_set_to_nothing_is_not_set_for_a_class(tmp_path, monkeypatch):
    monkeypatch.setenv("MODEL_SCORE_THRESHOLD", "")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    workspace.enter(tmp_path)
    # As upstream's example reads it: float("") would stop it.
    assert float(os.getenv("MODEL_SCORE_THRESHOLD", 0.5)) == 0.5
    assert os.environ["LOG_LEVEL"] == "debug"
    assert os.environ["MODEL_ROOT"] == str(tmp_path)


def test_the_projects_that_are_remembered_are_bounded(serve, monkeypatch):
    monkeypatch.setattr("ls_yolo.user_model.runner.PROJECTS", 3)
    client, mine = serve(predictor("return []"))
    for number in (1, 2, 1, 3, 4):
        client.post("/setup", json={"project": f"{number}.1", "schema": "<View/>"})
    assert list(mine._projects) == ["1", "3", "4"]


def test_the_message_of_a_missing_package_is_the_command_that_puts_it_there(serve):
    from ls_yolo.user_model.loader import ModelClassError

    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    command = (
        "python3 -m pip install --target models/packages --no-deps --only-binary=:all: "
        f"--python-version {version} no-such-thing\n"
    )
    for text in (HEAD + "import no_such_thing.part", predictor("return []") + (
        "    def setup(self):\n        import no_such_thing.part\n")):  # fmt: skip
        with pytest.raises(ModelClassError) as caught:
            serve(text)
        assert command in str(caught.value)
