"""Which model answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.labelstudio import selection
from ls_yolo.labelstudio.selection import SelectionError

NAMES = st.lists(
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    "value",
    [
        {"0": "wheelhouse-person", "1": "wheelhouse-head"},  # as the reference deployment has it
        '{"0": "wheelhouse-person", "1": "wheelhouse-head"}',
        ["wheelhouse-person", "wheelhouse-head"],
        '["wheelhouse-person", "wheelhouse-head"]',
        {"person": "wheelhouse-person", "head": " wheelhouse-head "},
        ["wheelhouse-person", "wheelhouse-head", "wheelhouse-person"],
    ],
)
def test_extra_params_name_models_in_the_forms_that_people_write(value):
    assert selection.from_extra_params(value) == ("wheelhouse-person", "wheelhouse-head")


@pytest.mark.parametrize("value", ["coco", '"coco"', " coco "])
def test_a_single_name_needs_no_brackets(value):
    assert selection.from_extra_params(value) == ("coco",)


@pytest.mark.parametrize("value", [None, "", "  ", {}, [], "{}", "[]", "null"])
def test_no_extra_params_name_no_model(value):
    assert selection.from_extra_params(value) == ()


@pytest.mark.parametrize("value", [5, "5", True, {"0": 1}, {"0": {"a": "b"}}, [["a"]], [None]])
def test_what_names_no_models_is_refused_and_shown(value):
    with pytest.raises(SelectionError, match=r"extra_params: found .*, expected names of models"):
        selection.from_extra_params(value)


@pytest.mark.parametrize("text", ["+", "a+", "+a", "a++b", " + "])
def test_an_empty_name_is_refused(text):
    with pytest.raises(SelectionError, match="found an empty name"):
        selection.from_url(text)
    with pytest.raises(SelectionError, match="found an empty name"):
        selection.from_extra_params(text.split("+"))


@given(NAMES)
def test_a_url_and_extra_params_name_the_same_models_each_once_in_order(names):
    wanted = tuple(dict.fromkeys(names))
    assert selection.from_url("+".join(names)) == wanted
    assert selection.from_extra_params(names) == wanted
    assert (
        selection.from_extra_params(json.dumps({str(i): n for i, n in enumerate(names)})) == wanted
    )


def test_the_url_comes_before_extra_params_and_those_before_the_default():
    assert selection.choose(["u"], ["e"], "d") == ("u",)
    assert selection.choose([], ["e", "f"], "d") == ("e", "f")
    assert selection.choose([], [], "d") == ("d",)
