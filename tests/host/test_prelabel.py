"""A host predicts what is missing, by the playbook for many; and again, when nothing is."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.host
PROJECT = "ls-yolo demo"


def prelabel(host, variables):
    wanted = {**variables, "ls_yolo_prelabel_project": PROJECT}
    return host.playbook("prelabel.yml", variables=wanted)


def test_what_is_missing_is_predicted(host, site, variables):
    assert host.predicted() == host.tasks(), "of the first run"
    for prediction in host.label_studio("/api/predictions/"):
        host.label_studio(f"/api/predictions/{prediction['id']}/", "DELETE")
    outcome = prelabel(host, variables)
    assert outcome.code == 0, outcome.message()
    assert outcome.changed == ["ls_yolo : Wait until every task has a prediction"]
    (number,) = [
        project["id"]
        for project in host.label_studio("/api/projects/")["results"]
        if project["title"] == PROJECT
    ]
    demo = {task["id"] for task in host.label_studio(f"/api/tasks?project={number}")["tasks"]}
    assert demo and host.predicted() == demo


def test_where_nothing_is_missing_nothing_is_changed(host, site, variables):
    before = len(host.label_studio("/api/predictions/"))
    outcome = prelabel(host, variables)
    assert outcome.code == 0, outcome.message()
    assert outcome.counts["changed"] == 0, outcome.changed
    assert len(host.label_studio("/api/predictions/")) == before


def test_the_token_is_on_no_command_line_in_no_log_and_in_no_file_afterwards(host, site):
    token = host.settings()["LABEL_STUDIO_API_KEY"]
    assert token not in host.log.read_text()
    assert token not in host.root("journalctl", "--no-pager", "--all")
    # The engine's own files have the environment of each container; root alone reads them.
    search = ["grep", "-rlsF", "--exclude-dir=containerd", "--exclude-dir=docker", token]
    found = host.root(*search, "/run", "/tmp", "/root", "/home", check=False)
    assert found == ""


def test_the_rest_of_the_projects_is_predicted_by_setup_again(host, site, variables):
    outcome = host.playbook("site.yml", variables=variables)
    assert outcome.code == 0, outcome.message()
    assert host.predicted() == host.tasks()
