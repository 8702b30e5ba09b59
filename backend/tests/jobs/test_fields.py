"""Counts of a task's objects as numbers of the Data Manager."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.jobs import fields
from ls_yolo.jobs.fields import column, counts, labels
from ls_yolo.labelstudio.client import Studio


def region(kind, **value):
    return {"type": kind, "value": value}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (region("rectanglelabels", x=1, rectanglelabels=["person"]), ["person"]),
        (region("videorectangle", sequence=[], labels=["船员"]), ["船员"]),
        (region("rectangle", x=1), []),
        (region("labels", x=1, labels=["a", "b"]), ["a", "b"]),
        (region("choices", choices=["day"]), ["day"]),
        (region("taxonomy", taxonomy=[["ship", "tug"], ["quay"]]), ["ship / tug", "quay"]),
        (region("number", number=3), []),
        ({"type": "relation"}, []),
        ({}, []),
    ],
)
def test_the_labels_of_every_kind_of_region_are_found(found, expected):
    assert labels(found) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("person", "count_person"),
        ("Person", "count_Person"),
        ("船员", "count_船员"),
        ("safety helmet", "count_safety_helmet"),
        ("no_vest", "count_no_vest"),
    ],
)
def test_a_plain_label_is_its_own_column(label, expected):
    assert column(label) == expected


@given(st.text(st.characters(), max_size=80))
def test_a_column_is_safe_whatever_the_label_is(label):
    found = column(label)
    assert re.fullmatch(r"count_\w+", found)
    assert "__" not in found
    assert found != fields.TOTAL
    assert found == column(label)


def test_labels_that_differ_in_signs_alone_have_columns_of_their_own():
    names = ["a-b", "a.b", "a/b", "a:b", "a[b", "a  b", "a b ", "_a b", "a b", "?", "!", "x" * 61]
    names += ["x" * 62, "data__a"]
    assert len({column(name) for name in names}) == len(names)


def test_objects_are_counted_by_label_and_those_of_a_pair_once():
    found = counts(
        [
            region("rectanglelabels", rectanglelabels=["person"]),
            region("rectanglelabels", rectanglelabels=["person"]),
            region("polygon", points=[]),
            region("labels", labels=["ship"]),
            region("choices", choices=["day"]),
        ],
        ["person", "helmet"],
    )
    assert found == {
        "count": 3,
        "count_person": 2,
        "count_helmet": 0,
        "count_ship": 1,
        "count_day": 1,
    }


def test_nothing_is_a_number_too():
    assert counts([], ["person"]) == {"count": 0, "count_person": 0}
    assert counts([]) == {"count": 0}


COLUMNS = [
    {"id": "id", "visibility_defaults": {"explore": True, "labeling": False}},
    {"id": "created_at", "visibility_defaults": {"explore": False, "labeling": False}},
    {"id": "image", "parent": "data", "visibility_defaults": {"explore": True, "labeling": True}},
    {"id": "count", "parent": "data", "visibility_defaults": {"explore": True, "labeling": False}},
    {"id": "data", "children": ["image", "count"]},
]
HIDDEN = {
    "explore": ["tasks:created_at"],
    "labeling": ["tasks:id", "tasks:created_at", "tasks:data.count"],
}


class Views:
    """What Label Studio's calls for views do, as far as they are used: a view's data is replaced as
    a whole, and always comes with filters and ordering."""

    def __init__(self, *rows):
        self.rows = [{"id": number, "project": 7, "data": data} for number, data in enumerate(rows)]
        self.changes = []

    def handler(self):
        views = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path, _, query = self.path.partition("?")
                assert query == "project=7"
                rows = {"/api/dm/views/": views.rows, "/api/dm/columns": {"columns": COLUMNS}}
                self.answer(rows[path])

            def do_POST(self):
                row = {"id": len(views.rows), **self.body()}
                views.rows.append(row)
                self.answer(row)

            def do_PATCH(self):
                row = views.rows[int(self.path.strip("/").rpartition("/")[2])]
                row |= self.body()
                self.answer(row)

            def body(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert body["project"] == 7
                views.changes.append((self.command, body["data"]))
                return body

            def answer(self, content):
                data = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler


@pytest.fixture
def studio(loopback):
    def make(views):
        server = loopback(views.handler())
        return Studio(f"http://127.0.0.1:{server.server_port}", "a-legacy-token")

    return make


def test_the_view_is_made_once_and_sorted_by_numbers(studio):
    views = Views({"title": "Default"})
    api = studio(views)
    assert fields.show(api, 7, ["count_person"])
    ((method, data),) = views.changes
    assert method == "POST"
    assert data["title"] == "Most objects"
    assert data["ordering"] == ["-tasks:data.count"]
    numbers = {"tasks:data.count": "Number", "tasks:data.count_person": "Number"}
    assert data["columnsDisplayType"] == numbers
    assert data["hiddenColumns"] == HIDDEN
    assert not fields.show(api, 7, ["count_person"])
    assert len(views.changes) == 1


def test_a_project_without_views_gets_the_one_first_that_the_page_would_have_made(studio):
    views = Views()
    assert fields.show(studio(views), 7, [])
    (_, first), (_, second) = views.changes
    assert first == {
        "title": "Default",
        "type": "list",
        "target": "tasks",
        "hiddenColumns": HIDDEN,
    }
    assert second["title"] == "Most objects"


def test_a_view_that_is_there_learns_of_new_columns_and_keeps_what_people_have_set(studio):
    mine = {
        "title": "Most objects",
        "ordering": ["tasks:data.count_ship"],
        "columnsDisplayType": {"tasks:data.year": "Number", "tasks:data.count": "Number"},
        "gridWidth": 9,
        "filters": {"conjunction": "and", "items": []},
    }
    views = Views({"title": "Default"}, mine)
    assert fields.show(studio(views), 7, ["count_船员"])
    ((method, data),) = views.changes
    assert method == "PATCH"
    assert data.pop("columnsDisplayType") == {
        "tasks:data.year": "Number",
        "tasks:data.count": "Number",
        "tasks:data.count_船员": "Number",
    }
    assert data == {name: mine[name] for name in ("title", "ordering", "gridWidth", "filters")}
