"""The choice of models survives a restart, and holds on a replica that never saw /setup."""

from __future__ import annotations

import pytest

from ls_yolo.labelstudio import connections
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.labelstudio.selection import SelectionError

HOST = "backend:9090"


class Connections:
    """Label Studio's ML connections; ``rows`` None: it cannot be asked."""

    def __init__(self, *rows):
        self.rows = list(rows)
        self.asked = []

    def connections(self, project):
        self.asked.append(project)
        if self.rows is None:
            raise StudioError("connections of project 1: 401: Invalid token.")
        return self.rows


def row(url="http://backend:9090", extra_params=None):
    return {"url": url, "extra_params": extra_params}


def test_what_setup_brought_is_remembered_without_asking():
    studio = Connections()
    choices = ModelChoices(studio)
    assert choices.remember(1, {"0": "a", "1": "b"}) == ("a", "b")
    assert choices.recall(1, HOST) == ("a", "b")
    assert studio.asked == []


def test_that_setup_brought_nothing_is_remembered_too():
    studio = Connections()
    choices = ModelChoices(studio)
    assert choices.remember(1, None) == ()
    assert choices.recall(1, HOST) == ()
    assert studio.asked == []


def test_projects_do_not_share_their_choice():
    choices = ModelChoices(Connections(row(extra_params=["b"])))
    choices.remember(1, ["a"])
    assert choices.recall(2, HOST) == ("b",)


def test_after_a_restart_the_choice_is_read_back_once():
    studio = Connections(row(extra_params={"0": "a"}))
    choices = ModelChoices(studio)
    assert choices.recall(7, HOST) == ("a",)
    assert choices.recall(7, HOST) == ("a",)
    assert studio.asked == [7]


def test_a_change_on_another_replica_is_seen_once_the_memory_is_old():
    studio = Connections(row(extra_params=["b"]))
    choices = ModelChoices(studio, lifetime=0)
    choices.remember(1, ["a"])
    assert choices.recall(1, HOST) == ("b",)


def test_a_request_without_project_has_no_choice():
    studio = Connections(row(extra_params=["a"]))
    choices = ModelChoices(studio)
    assert choices.remember(None, ["a"]) == ("a",)
    assert choices.recall(None, HOST) == ()
    assert studio.asked == []


def test_without_a_token_memory_is_all_there_is_and_does_not_age():
    choices = ModelChoices(None, lifetime=0)
    assert choices.recall(1, HOST) == ()
    choices.remember(1, ["a"])
    assert choices.recall(1, HOST) == ("a",)


def test_where_label_studio_cannot_be_asked_its_last_choice_holds():
    studio = Connections()
    studio.rows = None
    choices = ModelChoices(studio, lifetime=0)
    choices.remember(1, ["a"])
    assert choices.recall(1, HOST) == ("a",)
    choices.remember(1, None)
    assert choices.recall(1, HOST) == ()


def test_where_nothing_is_known_a_guess_would_be_the_wrong_model():
    studio = Connections()
    studio.rows = None
    with pytest.raises(StudioError, match="Invalid token"):
        ModelChoices(studio).recall(1, HOST)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://backend:9090/", "backend:9090"),
        ("http://BACKEND:9090", "backend:9090"),
        ("http://backend", "backend"),
        ("http://backend:80", "backend"),
        ("http://192.168.103.129:9090", "192.168.103.129:9090"),
        ("http://[fd00::2]:9090", "[fd00::2]:9090"),
    ],
)
def test_of_several_connections_the_one_that_leads_here_counts(url, host):
    rows = row("http://other:9090", ["wrong"]), row(url, ["right"])
    assert ModelChoices(Connections(*rows)).recall(1, host) == ("right",)


def test_a_connection_whose_url_names_models_is_not_the_one_that_asks():
    rows = row("http://backend:9090/m/coco", None), row(extra_params=["right"])
    assert ModelChoices(Connections(*rows)).recall(1, HOST) == ("right",)


def test_behind_a_proxy_that_renames_us_the_first_connection_counts():
    rows = row("https://models.example.com/yolo", ["a"]), row("http://other:x", ["b"]), row(None)
    assert ModelChoices(Connections(*rows)).recall(1, HOST) == ("a",)


def test_no_connection_means_no_choice():
    assert ModelChoices(Connections()).recall(1, HOST) == ()


def test_extra_params_that_name_no_models_are_refused_and_not_kept():
    choices = ModelChoices(Connections(row(extra_params=["a"])))
    with pytest.raises(SelectionError):
        choices.remember(1, {"0": 5})
    assert choices.recall(1, HOST) == ("a",)


def test_what_is_remembered_is_bounded_and_what_is_used_stays(monkeypatch):
    monkeypatch.setattr(connections, "KEPT", 3)
    studio = Connections(row(extra_params=["asked"]))
    choices = ModelChoices(studio)
    for project in range(1, 4):
        choices.remember(project, ["told"])
    choices.recall(1, HOST)
    for project in range(4, 6):
        choices.remember(project, ["told"])
    assert [choices.recall(project, HOST) for project in (1, 4, 5)] == [("told",)] * 3
    assert choices.recall(2, HOST) == ("asked",)
