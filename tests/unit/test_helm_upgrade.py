"""What an upgrade of a release refuses, writes down and goes back from, without a cluster."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from types import SimpleNamespace

import pytest

import helm_backup
import helm_restore
import helm_upgrade
from cluster import release
from lib import commands, staging
from lib.cli import UserError

DEPLOYMENT = {"metadata": {"name": "x-ls-yolo-label-studio",
                           "labels": {"app.kubernetes.io/instance": "x"}},
              "spec": {"replicas": 2}}  # fmt: skip
BACKEND = {"metadata": {"name": "x-ls-yolo-backend"}, "spec": {"replicas": 1}}
WHERE = release.Release("labels", DEPLOYMENT, BACKEND)
SECRETS = {"LABEL_STUDIO_API_KEY": "of before"}


@pytest.fixture
def did(monkeypatch):
    """What was done to a cluster that does all that it is asked for, in order."""
    done = SimpleNamespace(steps=[], notes={}, breaks="", secrets=SECRETS)

    def step(name, *more):
        done.steps.append(" ".join([name, *map(str, more)]))
        if done.breaks and done.steps[-1].startswith(done.breaks):
            raise UserError(f"{name} is broken")

    monkeypatch.setattr(release, "note", lambda _, what: done.notes.get(what))
    monkeypatch.setattr(release, "write_note",
                        lambda _, what, said: done.notes.update({what: dict(said)}))  # fmt: skip
    monkeypatch.setattr(release, "remove_note", lambda _, what: done.notes.pop(what))
    monkeypatch.setattr(release, "scale", lambda _, pods: step("scale", *pods.values()))
    monkeypatch.setattr(release, "hand", lambda where: contextlib.nullcontext(where))
    monkeypatch.setattr(helm_backup, "make", lambda *_: step("backup") or "/b/x.tar.gz")
    monkeypatch.setattr(staging, "first_look", lambda *_: ({}, ""))
    monkeypatch.setattr(helm_restore, "put", lambda *_: step("put") or {})
    monkeypatch.setattr(helm_restore, "give", lambda *_: step("give"))
    monkeypatch.setattr(release.Release, "secrets", lambda _: done.secrets)
    monkeypatch.setattr(release, "setup_again", lambda _: step("setup"))
    monkeypatch.setattr(helm_restore, "finish", lambda *_: step("finish"))
    monkeypatch.setattr(helm_upgrade, "predict", lambda _: step("predict"))
    monkeypatch.setattr(commands, "run", lambda words, **_: step(*words[1:3]))
    return done


@pytest.fixture
def upgrade():
    return helm_upgrade.Upgrade(WHERE, 3, SECRETS, ["-f", "/v.yaml"], "/b", "")


def test_it_is_stopped_and_saved_before_helm_changes_it(did, upgrade):
    upgrade.write()
    helm_upgrade.go_on(upgrade)
    assert did.steps == ["scale 0", "backup", "upgrade x", "predict"]
    assert not did.notes


def test_what_is_written_down_is_read_back(did, upgrade):
    upgrade.write()
    assert helm_upgrade.begun(WHERE) == upgrade
    assert asdict(upgrade)["before"]["namespace"] == "labels"


UP = ["rollback x", "scale 2 1", "setup"]
BACK = ["scale 0 0", "put", "finish", *UP]


@pytest.mark.parametrize(
    ("breaks", "steps"),
    [
        ("backup", ["scale 0", "backup", *UP]),
        ("upgrade", ["scale 0", "backup", "upgrade x", *BACK]),
        ("predict", ["scale 0", "backup", "upgrade x", "predict", *BACK]),
    ],
)
def test_where_it_fails_the_data_are_those_of_before_if_they_were_touched(
    did, upgrade, breaks, steps
):
    did.breaks = breaks
    with pytest.raises(
        UserError, match=r"x runs as before, since the upgrade failed: .* is broken"
    ):
        helm_upgrade.go_on(upgrade)
    assert did.steps == steps
    assert not did.notes


def test_killed_on_the_way_back_it_goes_on_there(did, upgrade):
    did.breaks = "rollback"
    upgrade.started, upgrade.backup, upgrade.failed = True, "/b/x.tar.gz", "it broke"
    with pytest.raises(UserError, match="rollback is broken"):
        helm_upgrade.go_on(upgrade)
    did.breaks, did.steps = "", []
    with pytest.raises(UserError, match="since the upgrade failed: it broke"):
        helm_upgrade.go_on(helm_upgrade.begun(WHERE))
    assert did.steps == UP, "the data are restored once"


def test_what_a_restore_has_brought_since_the_revision_was_made_stays_in_the_secret(did, upgrade):
    did.breaks, did.secrets = "backup", {"LABEL_STUDIO_API_KEY": "of Helm's revision"}
    with pytest.raises(UserError, match="runs as before"):
        helm_upgrade.go_on(upgrade)
    assert did.steps[2:] == ["rollback x", "give", "scale 0 0", "scale 2 1", "setup"]


def test_a_setup_that_fails_is_said_and_leaves_nothing_half_done(did, upgrade, capsys, monkeypatch):
    def fails(_):
        raise UserError("setup did not reach its goal")

    monkeypatch.setattr(release, "setup_again", fails)
    did.breaks = "upgrade"
    with pytest.raises(UserError, match="upgrade is broken"):
        helm_upgrade.go_on(upgrade)
    assert "setup did not reach its goal" in capsys.readouterr().out
    assert not did.notes


def test_killed_after_the_backup_it_is_not_made_again(did, upgrade):
    upgrade.started, upgrade.backup = True, "/b/x.tar.gz"
    upgrade.write()
    helm_upgrade.go_on(helm_upgrade.begun(WHERE))
    assert did.steps == ["upgrade x", "predict"]
