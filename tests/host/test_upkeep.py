"""What happens to a host over the years: it gets another version, is given back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import build
from lib import ROOT, versions
from tests.host.conftest import LABEL_STUDIO
from tests.host.machines import Commits, Machine, Outcome

pytestmark = pytest.mark.host

NEXT = "99.0.0"
# What somebody put into the kit's folder.
THEIRS = ("/opt/ls-yolo/models/theirs.pt", "/opt/ls-yolo/note.txt")
# What a user's own model has written, and what has come since a backup.
VOLUMES = "/var/lib/docker/volumes"
STATE = f"{VOLUMES}/ls-yolo_backend-data/_data/state-of-a-model"
ENDED = "/run/label-studio-ended"
SINCE = f"{VOLUMES}/ls-yolo_label-studio-data/_data/since"
HOST_PAGE = ROOT / "docs" / "host.md"


@pytest.fixture(scope="module")
def next_version(commits: Commits, commit: str) -> str:
    """A commit after this one: with another VERSION, a new page, and one page less. Its images are
    built in a moment, of those that are there.
    """
    files = {"VERSION": f"{NEXT}\n", "docs/new.md": "# New\n"}
    files |= {f"{name}/Dockerfile": f"FROM {tag}\n" for name, tag in versions.images().items()}
    return commits.after(commit, files, without="docs/mirrors.md")


@pytest.fixture(scope="module")
def by_hand(host: Machine, site: Outcome) -> str:
    """The services were started by hand, so that systemd takes them for stopped. In the file that
    this names stand the times at which Label Studio's container ends from here on."""
    host.root("systemctl", "stop", "ls-yolo")
    host.root("sh", "-c", "docker start $(docker ps --all --quiet)")
    # Written down as they come: the engine forgets all but its last 256 events.
    label = "com.docker.compose.service=label-studio"
    watch = f"exec docker events --filter event=die --filter label={label} --format '{{{{.Time}}}}'"
    host.root("systemd-run", "--quiet", "sh", "-c", f"{watch} >{ENDED}")
    return ENDED


@pytest.fixture(scope="module")
def upgraded(host: Machine, by_hand: str, variables: dict[str, Any], next_version: str) -> Machine:
    """The host with the next version."""
    host.give_image(build.BASE)
    host.root("touch", *THEIRS, STATE)
    newer = {**variables, "ls_yolo_version": next_version, "ls_yolo_images": "build"}
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
    (path,) = upgraded.root("sh", "-c", "ls /srv/ls-yolo/backups/*").splitlines()
    return path


def test_an_upgrade_saves_the_data_first(upgraded, backup):
    assert upgraded.root("stat", "-c", "%a %U", backup) == "600 root"
    names = {Path(name).name for name in upgraded.root("tar", "-tf", backup).splitlines()}
    assert {".env", "label_studio.sqlite3", Path(STATE).name} <= names


def test_services_that_systemd_knows_nothing_of_are_stopped_before_data_are_saved(
    upgraded, backup, by_hand
):
    ended = upgraded.root("cat", by_hand)
    written = upgraded.root("stat", "-c", "%Y", backup)
    assert int(ended.split()[0]) <= int(written)


def test_a_backup_is_put_back_as_the_page_says(upgraded, backup):
    before = upgraded.predicted()
    upgraded.root("touch", SINCE)
    upgraded.root("rm", STATE)
    for project in upgraded.label_studio("/api/projects/")["results"]:
        upgraded.label_studio(f"/api/projects/{project['id']}/", "DELETE")
    assert upgraded.tasks() == set()
    (commands,) = re.findall(r"```bash\n(archive=.*?)```", HOST_PAGE.read_text(), re.DOTALL)
    upgraded.root("bash", "-euc", commands.replace("/srv/ls-yolo/backups/<archive>", backup))
    assert upgraded.has(STATE) and not upgraded.has(SINCE)
    upgraded.root("systemctl", "start", "ls-yolo")
    assert upgraded.predicted() == before != set()


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
