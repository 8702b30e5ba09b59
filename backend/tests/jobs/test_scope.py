"""Which tasks a command means."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from ls_yolo.jobs import scope

FILTER = {
    "conjunction": "and",
    "items": [
        {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": 7},
    ],
}


def studio(*views):
    rows = [SimpleNamespace(model_dump=lambda view=view: {"data": view}) for view in views]
    return SimpleNamespace(client=SimpleNamespace(views=SimpleNamespace(list=lambda project: rows)))


@pytest.mark.parametrize(("text", "found"), [("0/1", (0, 1)), ("3/4", (3, 4)), ("007/8", (7, 8))])
def test_a_shard_is_its_number_and_how_many_there_are(text, found):
    assert scope.shard(text) == found


@pytest.mark.parametrize("text", ["", "4/4", "1", "-1/4", "1/0", "a/b", "1/4/8", "٣/4", "1 /4"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(scope.ScopeError, match="expected I/N, such as 0/4"):
        scope.shard(text)


def test_a_filter_is_json_or_a_file_with_it(tmp_path):
    file = tmp_path / "filter.json"
    file.write_text(json.dumps(FILTER))
    assert scope.where(json.dumps(FILTER), studio(), 1) == FILTER
    assert scope.where(f"@{file}", studio(), 1) == FILTER
    assert scope.where(json.dumps({"items": FILTER["items"]}), studio(), 1) == FILTER


@pytest.mark.parametrize(
    "text",
    ["id > 7", "[]", '{"items": 7}', '{"items": [{}]}', '{"conjunction": "xor"}', "[" * 9999],
)
def test_what_is_no_filter_is_refused_with_an_example(text):
    with pytest.raises(scope.ScopeError, match="expected JSON such as"):
        scope.where(text, studio(), 1)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(scope.ScopeError, match=r"none\.json: .*No such file"):
        scope.where(f"@{tmp_path}/none.json", studio(), 1)


def test_a_view_has_the_filters_that_people_gave_it():
    views = studio({"title": "Default"}, {"title": "Night", "filters": FILTER})
    assert scope.where("view:Night", views, 1) == FILTER
    assert scope.where("view:Default", views, 1) == {"conjunction": "and", "items": []}
    with pytest.raises(scope.ScopeError, match="no view 'Nigth'; did you mean 'Night'"):
        scope.where("view:Nigth", views, 1)
