"""Labels: what a labeling config asks for, and which class maps to which label."""

from __future__ import annotations

import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Control, Label, LabelConfigError

SEED = """<View>
  <Image name="image" value="$image"/>
  <RectangleLabels name="label" toName="image" model_score_threshold="0.2" model_path="" opacity="0.1">
    <Label value="person" background="red"/>
    <Label value="car" background="yellow"/>
  </RectangleLabels>
</View>
"""  # noqa: E501 - as it stands in the reference deployment
NAMES = st.text(string.ascii_letters + " _-", min_size=1, max_size=8).filter(label_config.plain)


def rectangle(image='value="$image"', attributes="", inner='<Label value="A"/>'):
    return (
        f'<View><Image name="image" {image}/><RectangleLabels name="label" toName="image" '
        f"{attributes}>{inner}</RectangleLabels></View>"
    )


def control(*found):
    """A control with labels: a text, or (label, other names...)."""
    made = [Label(x) if isinstance(x, str) else Label(x[0], tuple(x[1:])) for x in found]
    return Control("RectangleLabels", "label", "image", "Image", "$image", tuple(made))


def test_the_configuration_of_the_reference_deployment_is_read_as_it_stands():
    (found,) = label_config.parse(SEED)
    assert (found.tag, found.from_name, found.to_name) == ("RectangleLabels", "label", "image")
    assert (found.object_tag, found.value) == ("Image", "$image")
    assert [label.value for label in found.labels] == ["person", "car"]
    assert found.score_threshold == 0.2
    assert found.model_path == ""
    assert not found.skipped


def test_the_value_is_where_the_image_is_in_the_task_data():
    (one,) = label_config.parse(rectangle('value="$photo"'))
    (many,) = label_config.parse(rectangle('value="$other" valueList="$pages"'))
    assert (one.value, one.many) == ("$photo", False)
    assert (many.value, many.many) == ("$pages", True)


def test_several_images_have_each_their_own_controls():
    found = label_config.parse(
        """<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
        <RectangleLabels name="x" toName="a"><Label value="A"/></RectangleLabels>
        <RectangleLabels name="y" toName="b"><Label value="B"/></RectangleLabels></View>"""
    )
    assert [(c.from_name, c.to_name, c.value) for c in found] == [
        ("x", "a", "$left"),
        ("y", "b", "$right"),
    ]


def test_a_control_on_several_images_is_one_control_on_each():
    found = label_config.parse(
        """<View><Image name="a" value="$left"/><Image name="b" value="$right"/>
        <RectangleLabels name="x" toName="a,b"><Label value="A"/></RectangleLabels></View>"""
    )
    assert [(c.from_name, c.to_name, c.value) for c in found] == [
        ("x", "a", "$left"),
        ("x", "b", "$right"),
    ]


@pytest.mark.parametrize(
    "config",
    [
        "<View></View>",
        '<View><Image name="image" value="$image"/></View>',
        rectangle(""),
        rectangle().replace('toName="image"', 'toName="nothing"'),
    ],
)
def test_what_draws_on_nothing_is_no_control(config):
    assert label_config.parse(config) == ()


@pytest.mark.parametrize("config", ["", "<View>", "label", "{}", "<View>&nbsp;</View>"])
def test_what_is_not_xml_is_refused(config):
    with pytest.raises(LabelConfigError, match="the labeling config cannot be read: "):
        label_config.parse(config)


def test_an_external_entity_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("hunter2")
    config = f'<!DOCTYPE v [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]>' + rectangle(
        inner='<Label value="A" hint="h">&x;</Label>'
    )
    try:
        found = repr(label_config.parse(config))
    except LabelConfigError as error:
        found = str(error)
    assert "hunter2" not in found


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1", 1), (" 0.25 ", 0.25), ("", None)])
def test_a_control_may_give_its_own_threshold(text, value):
    found = label_config.parse(rectangle(attributes=f'model_score_threshold="{text}"'))
    assert found[0].score_threshold == value
    assert label_config.parse(rectangle())[0].score_threshold is None


@pytest.mark.parametrize("text", ["high", "1.5", "-0.1", "nan", "inf", "0,5", "50%"])
def test_a_threshold_that_is_no_score_is_refused_by_name(text):
    (found,) = label_config.parse(rectangle(attributes=f'model_score_threshold="{text}"'))
    with pytest.raises(
        LabelConfigError, match=r"model_score_threshold of 'label': found '.*from 0 to"
    ):
        _ = found.score_threshold


@pytest.mark.parametrize(
    ("text", "skipped"), [("true", True), ("1", True), ("Yes", True), ("false", False), ("", False)]
)
def test_a_control_can_ask_to_be_left_alone(text, skipped):
    assert label_config.parse(rectangle(attributes=f'model_skip="{text}"'))[0].skipped is skipped


def test_attributes_are_found_in_any_case():
    (found,) = label_config.parse(rectangle(attributes='Model_Path="boats" MODEL_SKIP="true"'))
    assert (found.model_path, found.skipped) == ("boats", True)


def test_a_control_knows_the_attributes_of_what_it_draws_on():
    (found,) = label_config.parse(
        '<View><VideoRectangle name="box" toName="film"/>'
        '<Video name="film" value="$film" frameRate="25"/></View>'
    )
    assert found.object_attributes["framerate"] == "25"
    assert "framerate" not in found.attributes


def test_a_class_maps_to_the_label_of_its_name():
    mapped = label_config.match(control("person", "car"), ["car", "person", "dog"])
    assert mapped.labels == {"person": "person", "car": "car"}
    assert mapped.unmapped == {}


@pytest.mark.parametrize("name", ["PERSON", "person", "Person", "p-e-r_s o n"])
def test_case_and_separators_do_not_matter(name):
    assert label_config.match(control("Person"), [name]).labels == {name: "Person"}


def test_an_exact_name_comes_before_a_loose_one_and_that_before_predicted_values():
    both = control(("adult", "person"), "person")
    assert label_config.match(both, ["person"]).labels == {"person": "person"}
    listed = control("Person", ("adult", "person"))
    assert label_config.match(listed, ["person"]).labels == {"person": "Person"}
    twice = control(("child", "PERSON"), ("adult", "person"))
    assert label_config.match(twice, ["person"]).labels == {"person": "adult"}
    loose = control(("adult", "PERSON"))
    assert label_config.match(loose, ["person"]).labels == {"person": "adult"}


def test_several_classes_may_stand_for_one_label():
    (found,) = label_config.parse(
        rectangle(inner='<Label value="vehicle" predicted_values="car, truck,,bus "/>')
    )
    assert label_config.match(found, ["car", "bus", "truck"]).labels == dict.fromkeys(
        ["car", "bus", "truck"], "vehicle"
    )


def test_a_label_with_an_alias_is_stored_by_it_and_found_by_both_names():
    (found,) = label_config.parse(rectangle(inner='<Label value="person, adult" alias="p"/>'))
    assert label_config.match(found, ["person, adult", "P"]).labels == {
        "person, adult": "p",
        "P": "p",
    }


def test_a_label_that_no_class_stands_for_has_a_hint_with_the_nearest_name():
    unmapped = label_config.match(control("persn", "zeppelin"), ["person", "car"]).unmapped
    assert unmapped == {
        "persn": "no class is called 'persn'; did you mean 'person'?",
        "zeppelin": "no class is called 'zeppelin'",
    }


@given(st.lists(NAMES, unique=True), st.lists(NAMES))
def test_every_label_is_mapped_to_or_explained_and_never_both(found, names):
    mapped = label_config.match(control(*found), names)
    assert set(mapped.labels) <= set(names)
    assert set(mapped.labels.values()) | set(mapped.unmapped) == set(found)
    assert not set(mapped.labels.values()) & set(mapped.unmapped)
    for name, label in mapped.labels.items():
        assert label_config.plain(name) == label_config.plain(label)
        assert name == label or name not in found


@pytest.mark.parametrize("text", ["café", "Ångström", "한국어"])
def test_two_unicode_forms_of_a_text_are_equal(text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert label_config.match(control(composed), [decomposed]).labels == {decomposed: composed}
    assert label_config.match(control(decomposed), [composed]).labels == {composed: decomposed}
    listed = control(("x", decomposed))
    assert label_config.match(listed, [composed]).labels == {composed: "x"}


# Other controls than rectangles


def parsed(tag, inner="", attributes=""):
    image = '<Image name="image" value="$image"/>'
    text = f'<View>{image}<{tag} name="a" toName="image" {attributes}>{inner}</{tag}></View>'
    (found,) = label_config.parse(text)
    return found


@pytest.mark.parametrize(
    ("tag", "attributes", "values"),
    [
        ("Choices", "", ["a", "c"]),
        ("Choices", 'allowNested="true"', ["a / B", "c"]),
        ("Taxonomy", "", ["a", "a / B", "c"]),
        ("Taxonomy", 'leafsOnly="true"', ["a / B", "c"]),
    ],
)
def test_choices_are_labels_nested_where_the_tag_nests_them(tag, attributes, values):
    inner = (
        '<Choice value="A" alias="a"><Choice value="B" predicted_values="x"/></Choice>'
        '<View><Choice value="c"/></View>'
    )
    found = parsed(tag, inner, attributes).labels
    assert [label.value for label in found] == values
    assert all(label.path == tuple(label.value.split(" / ")) for label in found if label.path)


def test_a_nested_label_is_matched_by_its_own_name_and_by_those_it_lists():
    inner = '<Choice value="A"><Choice value="B b" predicted_values="x"/></Choice>'
    found = label_config.match(parsed("Taxonomy", inner), ["b_b", "x", "y"])
    assert found.labels == {"b_b": "A / B b", "x": "A / B b"}
    assert found.classes == {"A / B b": ["b_b", "x"]}


def test_what_a_task_brings_may_be_nested_too():
    control = parsed("Taxonomy", attributes='value="$tree"')
    tree = [{"value": "A", "children": [{"value": "B"}, "no label"]}]
    (shown,) = label_config.shown(control, {"image": "a.jpg", "tree": tree})
    assert [label.path for label in shown.control.labels] == [("A",), ("A", "B")]


@pytest.mark.parametrize("tag", ["Number", "Rating"])
def test_what_is_to_be_counted_are_the_labels_of_a_number(tag):
    found = parsed(tag, attributes='model_count=" person, hard hat,"')
    assert [label.value for label in found.labels] == ["person", "hard hat"]
    assert parsed(tag).labels == ()


@pytest.mark.parametrize(
    ("text", "point"), [("0", 0), (" 16 ", 16), ("", None), ("-1", None), ("nose", None)]
)
def test_a_label_may_say_which_point_it_names(text, point):
    found = parsed("KeyPointLabels", f'<Label value="nose" model_index="{text}"/>')
    assert [label.point for label in found.labels] == [point]


def test_a_control_that_is_asked_for_each_region_is_skipped():
    assert parsed("Choices", attributes='perRegion="true"').skipped
    assert not parsed("Choices", attributes='perRegion="false"').skipped
