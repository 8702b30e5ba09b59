"""From a bare Debian 13 to stored predictions, over SSH."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.host


def test_a_check_of_a_bare_host_says_what_would_be_done_and_does_nothing(host, variables):
    with host.unchanged():
        outcome = host.playbook("site.yml", "--check", "--diff", variables=variables)
        assert outcome.code == 0, outcome.message()
    assert outcome.changed


def test_the_first_run_ends_with_a_prediction_of_each_task(host, site):
    assert site.code == 0
    tasks = host.label_studio("/api/tasks/?fields=all&page_size=100")["tasks"]
    predicted = {prediction["task"] for prediction in host.label_studio("/api/predictions/")}
    assert {task["id"] for task in tasks} == predicted
    assert len(predicted) == 5


def test_a_second_run_changes_nothing(host, site, variables):
    outcome = host.playbook("site.yml", variables=variables)
    assert outcome.code == 0, outcome.message()
    assert outcome.counts["changed"] == 0, outcome.changed


def test_everything_comes_back_by_itself_after_a_reboot(host, site):
    before = len(host.label_studio("/api/predictions/"))
    host.reboot()
    host.wait_until_healthy()
    assert len(host.label_studio("/api/predictions/")) == before > 0
    assert host.root("systemctl", "is-active", "ls-yolo", "docker") == "active\nactive"
