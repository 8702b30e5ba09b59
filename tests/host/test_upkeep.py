"""What happens to a host over the years: it gets another version, is given back."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest

import build
from commits import Commits, broken_images, next_images
from lib import versions
from tests.host.conftest import LABEL_STUDIO
from tests.host.machines import Machine, Outcome

pytestmark = pytest.mark.host

NEXT, BAD = "99.0.0", "99.1.0"
OURS = tuple(f"ls-yolo/{name}" for name in versions.images())
# What somebody put into the kit's folder.
THEIRS = ("/opt/ls-yolo/examples/theirs.yaml", "/opt/ls-yolo/note.txt")
# What a user's own model has written, and what has come since a backup.
VOLUMES = "/var/lib/docker/volumes"
STATE = f"{VOLUMES}/ls-yolo_backend-data/_data/state-of-a-model"
EVENTS = "/run/label-studio-events"
SINCE = f"{VOLUMES}/ls-yolo_label-studio-data/_data/since"
BACKUPS = "/srv/ls-yolo/backups"


@pytest.fixture(scope="module")
def next_version(commits: Commits, commit: str) -> str:
    """A commit after this one: with another VERSION, a new page, and one page less. Its images are
    built in a moment, of those that are there.
    """
    files = {"VERSION": f"{NEXT}\n", "docs/new.md": "# New\n"}
    return commits.after(commit, {**files, **next_images()}, without="docs/mirrors.md")


@pytest.fixture(scope="module")
def by_hand(host: Machine, site: Outcome) -> str:
    """The services were started by hand, so that systemd takes them for stopped. In the file that
    this names stand the times at which Label Studio's container starts and ends from here on."""
    host.root("systemctl", "stop", "ls-yolo")
    host.root("sh", "-c", "docker start $(docker ps --all --quiet)")
    # Written down as they come: the engine forgets all but its last 256 events.
    events = "docker events --filter event=die --filter event=start"
    label = "label=com.docker.compose.service=label-studio"
    watch = f"exec {events} --filter {label} --format '{{{{.Time}}}} {{{{.Action}}}}' >{EVENTS}"
    host.root("systemd-run", "--quiet", "sh", "-c", watch)
    host.wait_until_healthy()
    return EVENTS


@pytest.fixture(scope="module")
def passphrase() -> str:
    return secrets.token_urlsafe(24)


@pytest.fixture(scope="module")
def newer(variables: dict[str, Any], next_version: str, passphrase: str) -> dict[str, Any]:
    """What the inventory says of the next version."""
    return {
        **variables, "ls_yolo_version": next_version, "ls_yolo_images": "build",
        "ls_yolo_backup_passphrase": passphrase,
    }  # fmt: skip


@pytest.fixture(scope="module")
def worked_on(host: Machine, by_hand: str) -> Machine:
    """The host with what somebody has done there."""
    host.give_image(build.BASE)
    host.root("touch", *THEIRS, STATE)
    host.root("sh", "-c", f"rm -f {BACKUPS}/*")
    return host


def of_the_kit(host: Machine) -> list[Any]:
    """What an upgrade changes of a host, but for the times of files."""
    files = "find . -type f -not -path './.ansible/*' -not -name '*.pyc' -exec sha256sum {} +"
    return [
        sorted(host.root("sh", "-c", f"cd /opt/ls-yolo && {files}").splitlines()),
        [host.inspect(service)["Image"] for service in ("backend", "label-studio")],
        host.root("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "ls-yolo/*"),
        host.predicted(), host.label_studio("/api/projects/")["results"],
    ]  # fmt: skip


def test_an_upgrade_that_fails_is_taken_back_by_itself_and_says_why(
    worked_on, newer, commits, next_version
):
    before = of_the_kit(worked_on)
    broken = commits.after(next_version, {"VERSION": f"{BAD}\n", **broken_images()})
    outcome = worked_on.playbook("upgrade.yml", variables={**newer, "ls_yolo_version": broken})
    assert outcome.code == 2
    assert f"The version of before runs again, with its data, since {broken} failed" in (
        outcome.output
    )
    assert "label-studio: this version is broken" in outcome.output
    worked_on.root("docker", "image", "rm", *(f"{tag}:{BAD}" for tag in OURS))
    assert of_the_kit(worked_on) == before
    worked_on.root("sh", "-c", f"rm {BACKUPS}/*")


@pytest.fixture(scope="module")
def upgraded(worked_on: Machine, newer: dict[str, Any]) -> Machine:
    """The host with the next version."""
    host = worked_on
    outcome = host.playbook("upgrade.yml", variables=newer)
    assert outcome.code == 0, outcome.message()
    return host


def test_an_upgrade_brings_the_new_kit_and_leaves_nothing_of_the_old(upgraded):
    assert upgraded.root("cat", "/opt/ls-yolo/VERSION") == NEXT
    assert upgraded.root("cat", "/opt/ls-yolo/docs/new.md") == "# New"
    assert not upgraded.has("/opt/ls-yolo/docs/mirrors.md")


def test_an_upgrade_runs_the_new_images_on_the_old_data(upgraded):
    for service in ("backend", "label-studio"):
        assert upgraded.inspect(service)["Config"]["Image"] == f"ls-yolo/{service}:{NEXT}"
    assert upgraded.predicted() == upgraded.tasks() != set()


def test_an_upgrade_leaves_what_the_kit_did_not_bring(upgraded):
    assert all(upgraded.has(path) for path in THEIRS)


@pytest.fixture(scope="module")
def backup(upgraded: Machine) -> str:
    """The archive that the upgrade made."""
    (path,) = upgraded.root("sh", "-c", f"ls {BACKUPS}/*").splitlines()
    return path


def test_an_upgrade_saves_the_data_first_encrypted(upgraded, backup, passphrase):
    assert upgraded.root("stat", "-c", "%a %U", backup) == "600 ls-yolo"
    words = "gpg --batch --quiet --pinentry-mode loopback --passphrase-fd 0 --decrypt"
    listed = upgraded.root("sh", "-c", f"{words} {backup} | tar -tz", input=passphrase)
    assert set(listed.splitlines()) >= {
        "settings/.env", "label-studio/label_studio.sqlite3", f"backend/{Path(STATE).name}",
        "models/yolov8n.pt",
    }  # fmt: skip


def test_nothing_is_done_that_the_backup_of_an_upgrade_lacks(upgraded, backup, by_hand):
    events = [line.split() for line in upgraded.root("cat", by_hand).splitlines()]
    began, ended = map(int, upgraded.root("stat", "-c", "%W %Y", backup).split())
    assert [action for time, action in events if int(time) <= began][-1] == "die"
    assert all(int(time) <= began or int(time) >= ended for time, _ in events)


def test_nothing_is_left_of_what_an_upgrade_kept_for_the_way_back(upgraded):
    assert not upgraded.has("/opt/ls-yolo/.before-upgrade")
    assert "before-upgrade" not in upgraded.root("docker", "image", "ls")


def test_an_upgrade_is_taken_back_by_the_older_version_and_the_backup(
    upgraded, backup, newer, commit
):
    before = upgraded.predicted()
    upgraded.root("touch", SINCE)
    upgraded.root("rm", STATE)
    for project in upgraded.label_studio("/api/projects/")["results"]:
        upgraded.label_studio(f"/api/projects/{project['id']}/", "DELETE")
    assert upgraded.tasks() == set()
    older = {**newer, "ls_yolo_version": commit, "ls_yolo_images": "present"}
    outcome = upgraded.playbook("site.yml", variables={**older, "ls_yolo_restore": backup})
    assert outcome.code == 0, outcome.message()
    assert upgraded.root("cat", "/opt/ls-yolo/VERSION") == versions.project_version()
    assert upgraded.has(STATE) and not upgraded.has(SINCE)
    assert upgraded.predicted() == before != set()
    # What it took the place of can be had again.
    assert len(upgraded.root("sh", "-c", f"ls {BACKUPS}/*").splitlines()) == 2


@pytest.fixture(scope="module")
def given_back(upgraded: Machine, variables: dict[str, Any]) -> tuple[Machine, set[int]]:
    """The host after a reset that keeps data, and the tasks that were predicted before it."""
    before = upgraded.predicted()
    outcome = upgraded.playbook("reset.yml", variables=variables)
    assert outcome.code == 0, outcome.message()
    return upgraded, before


def test_a_reset_takes_away_what_was_made(given_back, friend):
    host, _ = given_back
    assert host.root("docker", "ps", "--all", "--quiet") == ""
    assert "ls-yolo" not in host.root("systemctl", "list-units", "--all", "--plain")
    assert "ls-yolo" not in host.root("nft", "list", "ruleset")
    assert "LS-YOLO" not in host.root("iptables-save")
    assert not host.has("/sys/class/net/ls-yolo-shim")
    assert not host.has("/etc/ls-yolo")
    assert friend.get(f"http://{LABEL_STUDIO}:8080/health") != "200"


def test_a_second_reset_changes_nothing(given_back, variables):
    host, _ = given_back
    outcome = host.playbook("reset.yml", variables=variables)
    assert (outcome.code, outcome.changed) == (0, [])


def test_data_outlives_a_reset(given_back, variables):
    host, before = given_back
    assert host.has("/opt/ls-yolo/.env")
    outcome = host.playbook("site.yml", variables={**variables, "ls_yolo_images": "present"})
    assert outcome.code == 0, outcome.message()
    assert host.predicted() == before


def test_a_reset_that_may_takes_the_data_too_also_after_one_that_kept_them(given_back, variables):
    host, _ = given_back
    for more in ((), ("-e", "ls_yolo_reset_data=true")):
        outcome = host.playbook("reset.yml", *more, variables=variables)
        assert outcome.code == 0, outcome.message()
    left = host.root("find", "/opt/ls-yolo", "/srv/ls-yolo", "-type", "f", check=False)
    assert sorted(left.splitlines()) == sorted(THEIRS)
    assert not host.has("/srv/ls-yolo")
    assert host.root("docker", "volume", "ls", "--quiet") == ""
    assert host.root("getent", "passwd", "ls-yolo", check=False) == ""
