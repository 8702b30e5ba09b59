"""What an upgrade refuses, writes down and goes back from, without a service."""

from __future__ import annotations

import json
import subprocess

import pytest

import restore
import up
import upgrade
from host import upgrading, volumes
from lib import git, settings, versions
from lib.cli import UserError


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in place of this one: two releases, the second checked out on a branch."""

    def run(*words):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
            capture_output=True,
        )  # fmt: skip

    run("init", "--quiet", "--initial-branch", "main")
    for tag in ("v0.9.0", "v0.10.0"):
        (tmp_path / "VERSION").write_text(f"{tag.removeprefix('v')}\n")
        run("add", ".")
        run("commit", "--quiet", "--message", tag)
        run("tag", tag)
    monkeypatch.setattr(git, "ROOT", tmp_path.resolve())
    return tmp_path


def test_the_newest_release_is_by_number_and_not_by_letter(clone):
    assert git.newest() == "v0.10.0"


def test_a_branch_is_gone_back_to_by_its_name_and_a_commit_by_its_hash(clone):
    assert git.here() == "main"
    git.git("checkout", "--quiet", "v0.9.0")
    assert git.here() == git.commit_of("v0.9.0")


def test_what_comes_before_a_release_is_none(clone):
    git.git("tag", "v1.0.0-rc1")
    assert git.newest() == "v0.10.0"


@pytest.fixture
def cloned(clone, tmp_path_factory, monkeypatch):
    """A clone of that clone, in place of this one; what that one gets later it does not know."""
    folder = tmp_path_factory.mktemp("cloned")
    subprocess.run(["git", "clone", "--quiet", str(clone), str(folder)], check=True)
    monkeypatch.setattr(git, "ROOT", folder)
    monkeypatch.setattr(versions, "ROOT", folder)
    return clone


ASKED = {"UPDATE_CHECK": "true"}


def test_a_newer_release_is_told_where_it_is_asked_for(cloned):
    assert up.newer_release(ASKED) == ""
    subprocess.run(["git", "tag", "v0.11.0"], cwd=cloned, check=True)
    assert up.newer_release(ASKED) == (
        "v0.11.0 is there: git fetch --tags && make upgrade   (docs/upgrade.md)"
    )


def test_nobody_is_asked_for_a_newer_release_unless_it_is_wanted(monkeypatch):
    monkeypatch.setattr(git, "git", lambda *words, **more: pytest.fail("git was called"))
    assert up.newer_release({"UPDATE_CHECK": "false"}) == ""


def test_where_a_newer_release_cannot_be_asked_for_that_is_told(cloned):
    git.git("remote", "set-url", "origin", "/nowhere")
    assert "whether there is a newer release is not known: git ls-remote" in up.newer_release(ASKED)


@pytest.mark.parametrize("name", ["v9", "--help", "", "HEAD:VERSION"])
def test_a_version_that_is_not_there_is_told(clone, name):
    with pytest.raises(UserError, match=r"found no version .* in this clone\. Newer ones come by"):
        git.commit_of(name)


def test_what_was_changed_in_the_kit_is_named_and_what_is_new_is_left_alone(clone):
    (clone / "mine.txt").touch()
    git.need_clone()
    (clone / "VERSION").write_text("mine")
    with pytest.raises(UserError, match="files of the kit were changed: VERSION"):
        git.need_clone()


def test_a_folder_that_is_no_clone_is_told_another_way(tmp_path, monkeypatch):
    monkeypatch.setattr(git, "ROOT", tmp_path)
    with pytest.raises(UserError, match=r"is no git clone .* make backup"):
        git.need_clone()


def test_a_folder_inside_somebody_elses_clone_is_none(clone, monkeypatch):
    (clone / "kit").mkdir()
    monkeypatch.setattr(git, "ROOT", clone.resolve() / "kit")
    with pytest.raises(UserError, match="is no git clone"):
        git.need_clone()


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({}, "is older than make upgrade"),
        ({"scripts/upgrade.py": "x", versions.LOCK: "label-studio==1.22.0"},
         r"has Label Studio 1\.22\.0, and 1\.23\.2 runs"),
    ],
)  # fmt: skip
def test_a_version_that_cannot_take_over_is_refused(monkeypatch, texts, said):
    monkeypatch.setattr(git, "commit_of", lambda name: name)
    monkeypatch.setattr(git, "text_at", lambda commit, path: texts.get(path, ""))
    monkeypatch.setattr(volumes, "label_studio_version", lambda project: "1.23.2")
    monkeypatch.setattr(settings, "values", lambda: {"COMPOSE_PROJECT_NAME": "mine"})
    with pytest.raises(UserError, match=said):
        upgrade.refuse("v0.1.0")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.setattr(upgrading, "ROOT", tmp_path)
    monkeypatch.setattr(settings, "values", lambda: {"COMPOSE_PROJECT_NAME": "mine"})
    return upgrade.Upgrade("v1", "v2", "/backups", "/secret", {"ls-yolo/backend:1": "sha256:a"})


def test_what_was_begun_is_read_as_it_was_written_by_its_owner_alone(mine):
    assert upgrade.begun() is None
    mine.worked = ["demo"]
    mine.write()
    assert upgrade.begun() == mine
    assert upgrading.journal(settings.values()).stat().st_mode & 0o777 == 0o600


def test_nobody_goes_on_working_while_one_is_half_done(mine, monkeypatch, tmp_path):
    # What it keeps for the way back would be put over what people do from then on.
    monkeypatch.setattr(up, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(settings, "ENV_FILE", tmp_path / ".env")
    (tmp_path / ".env").write_text("POSTGRES=0\n")
    mine.write()
    for begin in (
        lambda: up.main([]), lambda: up.main(["setup"]),
        lambda: restore.restore(tmp_path / "a.tar.gz", (None, None)),
    ):  # fmt: skip
        with pytest.raises(UserError, match=r"an upgrade is half done\. Run make upgrade"):
            begin()


def test_what_is_the_user_s_stays_where_a_version_had_a_file_of_that_name(clone):
    listed = clone / "models" / "models.yaml"

    def commit(name):
        git.git("add", "-f", ".")
        git.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", name)
        git.git("tag", name)

    listed.parent.mkdir()
    listed.write_text("the kit's")
    commit("theirs")
    git.git("rm", "-q", "--cached", "models/models.yaml")
    (clone / ".gitignore").write_text("/models/\n")
    git.git("add", ".gitignore")
    git.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "mine")
    git.git("tag", "mine")
    listed.write_text("the user's")
    git.check_out("theirs", ("models",))
    assert listed.read_text() == "the user's"
    assert git.commit_of("HEAD") == git.commit_of("theirs")
    # Killed after git was done, or refused by git: it is put back all the same.
    listed.rename(f"{listed}{git.ASIDE}")
    git.check_out("theirs", ("models",))
    assert listed.read_text() == "the user's"
    git.git("checkout", "-q", "-f", "mine")
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("the user's")
    (clone / "VERSION").write_text("changed")
    git.git("tag", "other", "v0.9.0")
    with pytest.raises(UserError, match="git checkout"):
        git.check_out("other", ("models",))
    (clone / "VERSION").write_text("0.10.0\n")
    assert listed.read_text() == "the user's"
    listed.unlink()
    git.git("checkout", "-q", "-f", "theirs")
    git.check_out("mine", ("models",))
    assert not listed.exists(), "that was the kit's"
    assert list(listed.parent.glob("*")) == [] if listed.parent.exists() else True


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({"before": "a", "other": 1})])
def test_a_file_of_it_that_cannot_be_read_is_named(mine, text):
    mine.write()
    upgrading.journal(settings.values()).write_text(text)
    with pytest.raises(UserError, match=r"upgrade-mine\.json: cannot be read"):
        upgrade.begun()


@pytest.mark.parametrize(
    ("worked", "works", "missing"),
    [
        (["a", "b"], {"a", "b", "c"}, None),
        (["a", "b"], {"a"}, "read back any more in b"),
        ([], set(), None),
        (None, set(), "read back any more$"),
        (None, {"a"}, None),
    ],
)
def test_a_prediction_that_was_stored_before_must_still_be(worked, works, missing):
    if missing is None:
        upgrade.compare(worked, works)
    else:
        with pytest.raises(UserError, match=missing):
            upgrade.compare(worked, works)


def test_what_fails_is_written_down_before_it_is_taken_back(mine, monkeypatch):
    def fails(one):
        raise UserError("the disk is full")

    def back(one):
        said = upgrade.begun()
        assert said is not None
        assert said.failed == "the disk is full"

    monkeypatch.setattr(upgrade, "forth", fails)
    monkeypatch.setattr(upgrade, "back", back)
    with pytest.raises(UserError, match="v1 runs as before, since v2 failed: the disk is full"):
        upgrade.go_on(mine)
