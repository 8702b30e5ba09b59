"""From a bare Debian 13 to stored predictions, over SSH."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import LABEL_STUDIO, METRICS
from tests.host.machines import Machine, Outcome, docker

pytestmark = pytest.mark.host


def test_a_check_of_a_bare_host_says_what_would_be_done_and_does_nothing(host, variables):
    with host.unchanged():
        outcome = host.playbook("site.yml", "--check", "--diff", variables=variables)
        assert outcome.code == 0, outcome.message()
    assert outcome.changed


def test_an_address_in_use_is_refused_before_anything_is_changed(host, friend, variables):
    friend.add(LABEL_STUDIO)
    try:
        with host.unchanged():
            outcome = host.playbook("site.yml", variables=variables)
            assert outcome.code == 2
    finally:
        friend.drop(LABEL_STUDIO)
    assert f"{LABEL_STUDIO} is in use by another machine" in outcome.message()


def test_a_folder_of_somebody_else_is_refused_before_anything_is_changed(host, variables):
    """A clone that someone runs with `make up`, say."""
    host.root("install", "-D", "/dev/null", "/opt/ls-yolo/models/mine.pt")
    with host.unchanged():
        outcome = host.playbook("site.yml", "--tags", "docker", variables=variables)
        assert outcome.code == 2
        assert "ls_yolo_dir: found models in /opt/ls-yolo, which no playbook" in outcome.message()
        assert host.playbook("reset.yml", variables=variables).code == 2
    host.root("rm", "-r", "/opt/ls-yolo")


def test_the_engine_comes_with_its_role_alone(host, engine):
    assert host.root("systemctl", "is-active", "docker") == "active"
    assert host.root("docker", "image", "ls", "--quiet") == ""


@pytest.fixture(scope="module")
def wrong_options(
    host: Machine,
    engine: Outcome,
    variables: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Outcome, str]:
    """A run on a host without buildx, which a bundle brings, with options that do not go together.

    And daemon.json as it was before.
    """
    found = host.root("sh", "-c", "dpkg-query --search '*/cli-plugins/docker-buildx'")
    package = found.partition(":")[0]
    host.root(
        "sh", "-c", f"cd /mnt && apt-get -q download {package} && apt-get -qy remove {package}"
    )
    file = host.root("sh", "-c", f"ls /mnt/{package}_*.deb")
    bundle = tmp_path_factory.mktemp("packages")
    docker("cp", f"{host.name}:{file}", bundle / Path(file).name)
    before = host.root("cat", "/etc/docker/daemon.json")
    options = {"log-driver": "json-file", "log-opts": {"syslog-address": "udp://192.0.2.1:514"}}
    outcome = host.playbook(
        "site.yml", "--tags", "docker",
        variables={
            **variables, "docker_source": "bundle", "docker_bundle": str(bundle),
            "docker_daemon_options": options,
        },
    )  # fmt: skip
    return outcome, before


def test_what_is_missing_comes_from_a_bundle(host, wrong_options):
    assert host.root("docker", "buildx", "version")


def test_an_engine_that_does_not_start_with_new_options_goes_on_with_the_old(host, wrong_options):
    outcome, before = wrong_options
    assert outcome.code == 2
    assert "unknown log opt 'syslog-address' for json-file" in outcome.message()
    assert json.loads(host.root("cat", "/etc/docker/daemon.json")) == json.loads(before)
    assert host.root("docker", "info", "--format", "{{.LoggingDriver}}") == "json-file"


def test_the_first_run_ends_with_a_prediction_of_each_task(host, site):
    assert host.predicted() == host.tasks()
    assert len(host.tasks()) == 5


def test_a_second_run_changes_nothing(host, site, variables):
    outcome = host.playbook("site.yml", variables=variables)
    assert outcome.code == 0, outcome.message()
    assert outcome.counts["changed"] == 0, outcome.changed


def test_secrets_are_given_or_made_on_the_host_and_shown_nowhere(host, site, variables):
    settings = host.settings()
    given = variables["ls_yolo_backend_env"]["LABEL_STUDIO_PASSWORD"]
    assert settings["LABEL_STUDIO_PASSWORD"] == given
    assert host.root("stat", "-c", "%a %U", "/opt/ls-yolo/.env") == "600 ls-yolo"
    # Where sudo writes each command line, and each module what it was asked for.
    journal = host.root("journalctl", "--no-pager", "--all")
    assert "BECOME-SUCCESS" in journal
    for name in ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS"):
        assert len(settings[name]) >= 20
        assert settings[name] not in host.log.read_text()
        assert settings[name] not in journal


def test_backups_are_made_by_themselves_and_tell_prometheus(host, site):
    assert "ls-yolo-backup.timer" in host.root("systemctl", "list-timers")
    assert host.root("cat", METRICS) == ""
    host.root("systemctl", "start", "ls-yolo-backup.service")
    (path,) = host.root("sh", "-c", "ls /srv/ls-yolo/backups/*").splitlines()
    made = host.root("stat", "-c", "%Y", path)
    told = f'ls_yolo_backup_last_success_timestamp_seconds{{project="ls-yolo"}} {made}'
    assert told in host.root("cat", METRICS)
    verify = ["python3", "/opt/ls-yolo/scripts/backup.py", "verify", path]
    assert "whole" in host.root("runuser", "-u", "ls-yolo", "--", *verify)
