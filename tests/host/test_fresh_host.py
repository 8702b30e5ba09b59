"""From a bare Debian 13 to stored predictions, over SSH."""

from __future__ import annotations

import pytest

from tests.host.conftest import LABEL_STUDIO

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
