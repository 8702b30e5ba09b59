"""What a control draws on in a task: as Label Studio's page shows it, with the names it gives."""

from __future__ import annotations

import pytest

from ls_yolo.labelstudio import label_config
from ls_yolo.labelstudio.label_config import Label, LabelConfigError

PAGES = """<View><Repeater on="$pages" indexFlag="{{idx}}">
<Image name="page_{{idx}}" value="$pages[{{idx}}].url"/>
<RectangleLabels name="label_{{idx}}" toName="page_{{idx}}"><Label value="A"/></RectangleLabels>
</Repeater></View>"""


def rectangle(image='value="$image"', attributes='toName="image"', inner='<Label value="A"/>'):
    return (
        f'<View><Image name="image" {image}/>'
        f'<RectangleLabels name="label" {attributes}>{inner}</RectangleLabels></View>'
    )


def shown(text, data):
    (control,) = label_config.parse(text)
    return [
        (s.control.from_name, s.control.to_name, s.index, s.url or s.fault)
        for s in label_config.shown(control, data)
    ]


@pytest.mark.parametrize(
    ("image", "data", "found"),
    [
        ('value="$image"', {"image": "a"}, [(None, "a")]),
        ('value="$photo.url"', {"photo": {"url": "a"}}, [(None, "a")]),
        ('value="$photo.url"', {"photo.url": "a"}, [(None, "a")]),
        ('value="x/$image"', {"image": "a"}, [(None, "x/a")]),
        ('VALUE="$image"', {"image": "a"}, [(None, "a")]),
        ('value="$image"', {"image": ["a", "b"]}, [(None, "a")]),
        ('valueList="$images"', {"images": ["a", "b"]}, [(0, "a"), (1, "b")]),
        ('valueList="$images"', {"images": "a"}, [(0, "a")]),
        ('valueList="$images" value="$image"', {"images": ["a"], "image": "b"}, [(0, "a")]),
    ],
)
def test_an_image_is_where_the_page_finds_it(image, data, found):
    assert [row[2:] for row in shown(rectangle(image), data)] == found


@pytest.mark.parametrize(
    ("image", "data", "fault"),
    [
        ('value="$image"', None, "data.image: found None, expected the URL of an image"),
        ('value="$image"', {"image": ""}, "data.image: found '', expected the URL of an image"),
        ('value="$image"', {"image": 5}, "data.image: found int, expected the URL of an image"),
        ('value="x/$image"', {}, "x/$image: found None, expected the URL of an image"),
        ('valueList="$images"', {"images": []}, "data.images: found None, expected the URL of an"),
    ],
)
def test_an_image_that_a_task_lacks_is_a_fault_that_names_the_value(image, data, fault):
    ((_, _, _, found),) = shown(rectangle(image), data)
    assert found.startswith(fault)


def test_one_item_of_a_list_that_is_no_url_is_a_fault():
    rows = shown(rectangle('valueList="$images"'), {"images": ["a", None]})
    assert [row[3] for row in rows] == [
        "a",
        "data.images: found None, expected the URL of an image",
    ]


def test_a_repeater_numbers_names_as_the_page_does():
    data = {"pages": [{"url": "a"}, {"url": "b"}]}
    numbered = [("label_0", "page_0", None, "a"), ("label_1", "page_1", None, "b")]
    assert shown(PAGES, data) == numbered
    assert shown(PAGES.replace("{{idx}}", "##"), data) == numbered
    assert shown(PAGES, {"pages": []}) == []


def test_a_repeater_without_indexflag_has_the_pages_own():
    text = PAGES.replace(' indexFlag="{{idx}}"', "")
    assert shown(text, {"pages": [{"url": "a"}]}) == [("label_0", "page_0", None, "a")]


def test_a_repeater_in_a_repeater_numbers_twice():
    text = """<View><Repeater on="$books" indexFlag="{{b}}"><Repeater on="$books[{{b}}].pages"
    indexFlag="{{p}}"><Image name="i{{b}}_{{p}}" value="$books[{{b}}].pages[{{p}}]"/>
    <RectangleLabels name="l{{b}}_{{p}}" toName="i{{b}}_{{p}}"><Label value="A"/></RectangleLabels>
    </Repeater></Repeater></View>"""
    assert shown(text, {"books": [{"pages": ["a"]}, {"pages": ["b", "c"]}]}) == [
        ("l0_0", "i0_0", None, "a"),
        ("l1_0", "i1_0", None, "b"),
        ("l1_1", "i1_1", None, "c"),
    ]


def test_a_list_that_a_task_lacks_is_a_fault():
    assert shown(PAGES, {})[0][3] == "data.pages: found None, expected a list"


@pytest.mark.parametrize(
    "text",
    [
        rectangle().replace("RectangleLabels", "rectanglelabels").replace("Label ", "label "),
        rectangle().replace("Image", "IMAGE"),
        rectangle().replace("<View>", '<View xmlns="http://www.w3.org/1999/xhtml">'),
        rectangle().replace("toName", "toname"),
        rectangle(attributes=""),  # the only object
        '<?xml version="1.0" encoding="utf-8"?>' + rectangle(),
        rectangle().replace("<View>", "<View><!-- {{idx}} --><?pi?>"),
    ],
)
def test_tags_and_attributes_are_read_as_the_page_does(text):
    (control,) = label_config.parse(text)
    assert control.tag.lower() == "rectanglelabels"
    assert [label.value for label in control.labels] == ["A"]
    assert shown(text, {"image": "a"}) == [("label", "image", None, "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rectangle('value="$图像"'), "value of 'image': found .*, expected .* and a name of the"),
        (PAGES.replace("label_{{idx}}", "label"), "name of 'label': found no {{idx}}, expected it"),
        (rectangle('value="$pages[{{idx}}]"'), "toName of 'label': 'image' is numbered by a Rep"),
        (
            PAGES.replace("</Repeater>", "").replace("<RectangleLabels", "</Repeater><Rectangle"
            "Labels"),
            "toName of .*: 'page_{{idx}}' is numbered by a Repeater, expected the control inside",
        ),
    ],
)  # fmt: skip
def test_what_the_page_could_not_resolve_for_any_task_is_refused(text, message):
    with pytest.raises(LabelConfigError, match=message):
        label_config.parse(text)


def test_labels_of_the_tasks_own_stand_beside_those_of_the_configuration():
    (control,) = label_config.parse(rectangle(attributes='toName="image" value="$objects"'))
    data = {"image": "a", "objects": [{"value": "B"}, {"value": "c d", "alias": "C"}, {}]}
    ((one,),) = [label_config.shown(control, data)]
    assert one.control.labels == (Label("A"), Label("B"), Label("C", ("c d",)))
    (bad,) = label_config.shown(control, {"image": "a", "objects": ["B"]})
    assert bad.fault == "data.objects: found list, expected a list of labels"
