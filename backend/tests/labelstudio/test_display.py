"""Which version people see while another is made, when it is complete, and after they went back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio import display

OLD, NEW, NEWER, NAMES = "m@old", "m@new", "m@newer", "m"


class Studio:
    """As Label Studio does: a new title takes the project's version along, and a version is
    refused that is neither a title nor one of predictions."""

    def __init__(self, title, named, current, there=()):
        self.named, self.there, self.on = named, set(there), True
        self.row = {"id": 3, "url": "http://b/m/m", "title": title, "model_version": current,
                    "auth_method": "BASIC_AUTH", "basic_auth_user": "u"}  # fmt: skip
        self.left = 99  # changes until it is killed
        self.client = SimpleNamespace(
            projects=SimpleNamespace(get=self._get, update=self._update),
            ml=SimpleNamespace(update=self._rename),
        )

    def connections(self, project):
        return [dict(self.row)] if self.row else []

    def _get(self, project):
        return SimpleNamespace(model_version=self.named, show_collab_predictions=self.on)

    def _change(self):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1

    def _update(self, project, model_version, show_collab_predictions):
        self._change()
        if model_version not in (self.row.get("title"), *self.there):
            raise ApiError(status_code=400, body="not there")
        self.named, self.on = model_version, show_collab_predictions

    def _rename(self, number, url, project, title, auth_method, basic_auth_user, basic_auth_pass):
        self._change()
        assert (number, url, basic_auth_user, basic_auth_pass) == ("3", "http://b/m/m", "u", "")
        if self.named == self.row["title"]:
            self.named = title
        self.row["title"] = title

    @property
    def state(self):
        return self.row["title"], self.named

    def run(self, version=NEW):
        """A run to its end; returns what is shown on the way, and what stays against it."""
        display.begin(self, 1, version, set(self.there), NAMES)
        during = self.state
        self.there.add(version)
        return during, display.end(self, 1, version, set(self.there))


def test_old_predictions_stay_until_the_new_are_complete():
    studio = Studio(OLD, OLD, NEW, {OLD})
    assert studio.run() == ((NAMES, OLD), "")
    assert studio.state == (NEW, NEW)


@pytest.mark.parametrize("title", [NAMES, OLD, NEW])
def test_where_nothing_is_shown_the_first_new_ones_are_seen_at_once(title):
    for named in {"", title, "pruned"} - {NAMES}:
        studio = Studio(title, named, NEW, {"imported"})
        assert studio.run() == ((NEW, NEW), "")


def test_a_run_that_predictions_are_hidden_from_shows_them():
    studio = Studio(OLD, OLD, NEW, {OLD})
    studio.on = False
    studio.run()
    assert (studio.state, studio.on) == ((NEW, NEW), True)


def test_who_has_gone_back_stays_there_until_a_newer_version_is_complete():
    studio = Studio(NEW, NEW, NEW, {OLD, NEW})
    display.go_back(studio, 1, OLD)
    assert studio.state == (NEW, OLD)
    assert studio.run() == ((NEW, OLD), OLD)
    assert studio.state == (NEW, OLD)
    studio.row["model_version"] = NEWER
    assert studio.run(NEWER) == ((NEW, OLD), "")
    assert studio.state == (NEWER, NEWER)


def test_going_back_to_the_version_of_the_title_is_not_answered_by_the_backend():
    studio = Studio(OLD, OLD, NEW, {OLD, NEW})
    display.go_back(studio, 1, OLD)
    assert studio.state == (NEW, OLD)


def test_going_back_to_the_current_version_has_tasks_predicted_when_opened_again():
    studio = Studio(NEW, OLD, NEW, {OLD, NEW})
    display.go_back(studio, 1, NEW)
    assert studio.state == (NEW, NEW)


@pytest.mark.parametrize("left", range(5))
@pytest.mark.parametrize("title", [OLD, NAMES])
def test_a_run_killed_between_changes_is_finished_by_the_next(left, title):
    studio = Studio(title, OLD, NEW, {OLD})
    studio.left = left
    try:
        studio.run()
    except KeyboardInterrupt:
        studio.left = 99
    studio.run()
    assert studio.state == (NEW, NEW)


def test_of_other_models_than_the_connections_the_title_is_not_theirs():
    studio = Studio(OLD, OLD, OLD, {OLD})
    assert studio.run("head@1") == ((OLD, OLD), "")
    assert studio.state == (OLD, "head@1")


def test_a_project_without_a_connection_shows_what_is_complete():
    studio = Studio("", "", "", ())
    studio.row = {}
    display.begin(studio, 1, NEW, set(), NAMES)
    assert studio.named == ""
    studio.there.add(NEW)
    display.end(studio, 1, NEW, {NEW})
    assert studio.named == NEW


def test_shards_that_begin_at_once_do_not_look_like_somebody_going_back():
    studio = Studio(OLD, OLD, NEW, {OLD})
    rename = studio.client.ml.update

    def between(*words, **more):
        rename(*words, **more)
        studio.client.ml.update = rename
        display.begin(studio, 1, NEW, {OLD}, NAMES)

    studio.client.ml.update = between
    assert studio.run() == ((NAMES, OLD), "")
    assert studio.state == (NEW, NEW)


def test_a_title_that_label_studio_does_not_take_ends_no_run():
    studio = Studio(OLD, OLD, NEW, {OLD})

    def refuse(*words, **more):
        raise ApiError(status_code=400, body="cannot connect")

    studio.client.ml.update = refuse
    studio.run()
    assert studio.state == (OLD, NEW)


@pytest.mark.parametrize(
    ("title", "named", "on", "shown"),
    [
        (OLD, OLD, True, NEW),  # the backend is asked, and answers with what it has now
        (NAMES, OLD, True, OLD),
        (OLD, OLD, False, ""),
        (NAMES, OLD, False, ""),
        (NAMES, "", True, ""),
    ],
)
def test_what_is_shown_is_what_people_see(title, named, on, shown):
    studio = Studio(title, named, NEW, {OLD})
    studio.on = on
    assert display.look(studio, 1).shown == shown
