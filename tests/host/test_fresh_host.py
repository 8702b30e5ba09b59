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


def test_secrets_are_made_on_the_host_and_shown_nowhere(host, site):
    settings = host.settings()
    assert host.root("stat", "-c", "%a %U", "/opt/ls-yolo/.env") == "600 ls-yolo"
    for name in ("LABEL_STUDIO_PASSWORD", "LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS"):
        assert len(settings[name]) >= 20
        assert settings[name] not in host.log.read_text()
