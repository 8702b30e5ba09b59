"""Choices, Taxonomy, Number, Rating: what is said of an image as a whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.controls.drawing import boxes, classes, config, draw, faults, masks, parsed, tag
from ls_yolo import controls
from ls_yolo.controls import NothingToDraw
from ls_yolo.labelstudio.label_config import LabelConfigError

CHOICE = '<Choice value="person"/><Choice value="car"/>'
SCORES = st.floats(0, 1, width=32)


def choices(attributes="", inner=CHOICE, kind="Choices"):
    return config(tag(kind, attributes, inner))


def values(regions, kind="choices"):
    return [region["value"][kind] for region in regions]


# Choices


@pytest.mark.parametrize("attributes", ["", 'choice="single"', 'choice="single-radio"'])
def test_a_single_choice_has_one_value_the_surest(attributes):
    found = draw(choices(attributes), classes(0.3, 0.6), 200, 100, lowest=0.1)
    assert found == [
        {
            "from_name": "label",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": ["car"]},
            "score": pytest.approx(0.6),
        }
    ]
    assert faults(choices(attributes), found) == []


def test_several_choices_are_all_above_the_threshold_with_their_mean_score():
    text = choices('choice="multiple"')
    (region,) = draw(text, classes(0.3, 0.6), 9, 9, lowest=0.1)
    assert region["value"] == {"choices": ["car", "person"]}
    assert region["score"] == pytest.approx(0.45)
    assert values(draw(text, classes(0.3, 0.6), 9, 9, lowest=0.5)) == [["car"]]


def test_the_surest_that_a_choice_stands_for_counts_not_the_surest_of_all_classes():
    names = {0: "person", 1: "car", 2: "zebra"}
    assert values(draw(choices(), classes(0.1, 0.3, 0.6), 9, 9, names=names)) == [["car"]]


def test_below_the_threshold_nothing_is_chosen():
    assert draw(choices(), classes(0.3, 0.625), 9, 9, lowest=0.625) == []


def test_several_classes_of_one_choice_count_as_the_surest_of_them():
    inner = '<Choice value="Vehicle" predicted_values="bus,lorry"/><Choice value="person"/>'
    names = {0: "bus", 1: "lorry", 2: "person"}
    found = draw(choices(inner=inner), classes(0.35, 0.2, 0.3), 9, 9, names=names)
    assert values(found) == [["Vehicle"]]
    assert found[0]["score"] == pytest.approx(0.35)


def test_a_choice_is_stored_under_its_alias():
    text = choices(inner='<Choice value="Person" alias="p"/><Choice value="Car" alias="c"/>')
    found = draw(text, classes(0.9, 0.1), 9, 9)
    assert values(found) == [["p"]]
    assert faults(text, found) == []


def test_objects_choose_what_is_there_with_the_highest_score_of_each_class():
    rows = boxes((0, 0, 9, 9, 0.6, 1), (0, 0, 9, 9, 0.8, 1), (0, 0, 9, 9, 0.7, 0))
    found = draw(choices('choice="multiple"'), rows, 9, 9)
    assert values(found) == [["car", "person"]]
    assert found[0]["score"] == pytest.approx(0.75)
    assert values(draw(choices(), rows, 9, 9)) == [["car"]]
    assert draw(choices(), boxes(), 9, 9) == []


def test_no_mask_is_made_to_see_what_is_there():
    result = masks([[1]])
    result.masks[0] = None
    assert values(draw(choices(), result, 9, 9)) == [["person"]]


def test_choices_inside_others_are_none_unless_the_tag_allows_it():
    inner = '<Choice value="Vehicle"><Choice value="car"/></Choice><Choice value="person"/>'
    assert [label.value for label in parsed(choices(inner=inner)).labels] == ["Vehicle", "person"]
    text = choices('allowNested="true"', inner)
    assert values(draw(text, classes(0.1, 0.9), 9, 9)) == [[["Vehicle", "car"]]]
    assert values(draw(text, classes(0.9, 0.1), 9, 9)) == [[["person"]]]


def test_choices_for_each_region_are_left_to_people():
    with pytest.raises(NothingToDraw, match="without model_skip or perRegion"):
        controls.drawn(choices('perRegion="true"'))
    both = config(tag("RectangleLabels", name="r"), tag("Choices", 'perRegion="true"', CHOICE))
    assert [control.from_name for control in controls.drawn(both)] == ["r"]


def test_several_models_and_images_make_one_answer():
    (control,) = controls.drawn(choices('choice="multiple"'))
    kind = controls.of(control)
    regions = [
        {"value": {"choices": ["car"]}, "score": 0.5},
        {"value": {"choices": ["person"]}, "score": 0.7},
        {"value": {"choices": ["car"]}, "score": 0.9},
    ]
    (found,) = kind.join(control, regions)
    assert (found["value"], found["score"]) == ({"choices": ["car", "person"]}, 0.8)


# Taxonomy

TREE = (
    '<Choice value="Things"><Choice value="Vehicles" alias="v">'
    '<Choice value="car"/></Choice></Choice><Choice value="person"/>'
)


def test_a_taxonomy_has_paths_from_the_root_by_alias():
    text = choices(inner=TREE, kind="Taxonomy")
    found = draw(text, classes(0.6, 0.9), 9, 9)
    assert values(found, "taxonomy") == [[["Things", "v", "car"], ["person"]]]
    assert found[0]["type"] == "taxonomy"
    assert faults(text, found) == []


def test_a_taxonomy_has_no_more_paths_than_the_tag_allows():
    text = choices('maxUsages="1"', TREE, "Taxonomy")
    assert values(draw(text, classes(0.6, 0.9), 9, 9), "taxonomy") == [[["Things", "v", "car"]]]


@pytest.mark.parametrize(("leafs", "expected"), [("false", [[["Things"]]]), ("true", [])])
def test_a_branch_is_chosen_unless_only_leaves_may_be(leafs, expected):
    inner = TREE.replace('value="Things"', 'value="Things" predicted_values="zebra"')
    text = choices(f'leafsOnly="{leafs}"', inner, "Taxonomy")
    found = draw(text, classes(0.9), 9, 9, names={0: "zebra"})
    assert values(found, "taxonomy") == expected


def test_one_name_in_two_branches_is_two_labels():
    inner = (
        '<Choice value="Left"><Choice value="door" predicted_values="a"/></Choice>'
        '<Choice value="Right"><Choice value="door" predicted_values="b"/></Choice>'
    )
    text = choices(inner=inner, kind="Taxonomy")
    found = draw(text, classes(0.6, 0.9), 9, 9, names={0: "a", 1: "b"})
    assert values(found, "taxonomy") == [[["Right", "door"], ["Left", "door"]]]


def test_a_label_that_no_class_stands_for_is_told_with_the_nearest_name():
    control = parsed(
        choices(inner='<Choice value="A"><Choice value="cra"/></Choice>', kind="Taxonomy")
    )
    said = controls.match(control, ["car"]).unmapped
    assert said["A / cra"] == "no class is called 'cra'; did you mean 'car'?"


# Number and Rating

THREE = boxes(*[(0, 0, 9, 9, score, 0) for score in (0.9, 0.8, 0.7)], (0, 0, 9, 9, 0.6, 1))


@pytest.mark.parametrize(
    ("what", "count"), [("person", 3), ("car", 1), ("person, Car", 4), ("zebra", 0)]
)
def test_a_number_is_how_many_objects_there_are_of_the_classes_to_count(what, count):
    text = config(tag("Number", f'model_count="{what}"', ""))
    found = draw(text, THREE, 9, 9)
    assert values(found, "number") == [count]
    assert ("score" in found[0]) == (count > 0)
    assert faults(text, found) == []


@pytest.mark.parametrize(
    ("attributes", "count"), [("", 3), ('maxRating="2"', 2), ('maxRating="10"', 3)]
)
def test_a_rating_is_never_above_its_most(attributes, count):
    text = config(tag("Rating", f'model_count="person" {attributes}', ""))
    found = draw(text, THREE, 9, 9)
    assert values(found, "rating") == [count]
    assert faults(text, found) == []


def test_no_star_is_no_rating():
    assert draw(config(tag("Rating", 'model_count="person"', "")), boxes(), 9, 9) == []


@pytest.mark.parametrize(("attributes", "count"), [('max="2"', 2), ('min="5"', 5), ('min="1"', 3)])
def test_a_number_is_one_that_the_page_lets_people_submit(attributes, count):
    text = config(tag("Number", f'model_count="person" {attributes}', ""))
    assert values(draw(text, THREE, 9, 9), "number") == [count]


@pytest.mark.parametrize("kind", ["Number", "Rating"])
def test_without_anything_to_count_it_is_left_to_people(kind):
    with pytest.raises(NothingToDraw, match="with model_count"):
        controls.drawn(config(tag(kind, "", "")))


@pytest.mark.parametrize("kind", ["Number", "Rating"])
def test_what_is_counted_needs_objects(kind):
    control = parsed(config(tag(kind, 'model_count="person"', "")))
    assert not controls.takes(control, "classify")
    assert all(controls.takes(control, task) for task in ("detect", "segment", "obb", "pose"))


def test_a_class_to_count_that_is_none_is_told():
    control = parsed(config(tag("Number", 'model_count="persn"', "")))
    assert controls.match(control, ["person"]).unmapped == {
        "persn": "no class is called 'persn'; did you mean 'person'?"
    }


@pytest.mark.parametrize(
    "text",
    [
        config(tag("Rating", 'model_count="person" maxRating="many"', "")),
        config(tag("Number", 'model_count="person" max="many"', "")),
        choices('maxUsages="0"', kind="Taxonomy"),
    ],
)
def test_a_limit_that_is_no_number_is_refused_by_name(text):
    with pytest.raises(LabelConfigError, match=r"of 'label': found '.*', expected a number"):
        controls.drawn(text)


@given(
    st.lists(SCORES, min_size=2, max_size=2),
    st.sampled_from(
        [choices(), choices('choice="multiple"'), choices(inner=TREE, kind="Taxonomy")]
    ),
    SCORES,
)
def test_whatever_the_scores_label_studio_takes_what_is_said(scores, text, lowest):
    found = draw(text, classes(*scores), 9, 9, lowest=lowest)
    json.dumps(found, allow_nan=False)
    assert faults(text, found) == []
    assert len(found) == (max(scores) > lowest)
