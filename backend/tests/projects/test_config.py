"""projects/*.yaml."""

from __future__ import annotations

import re

import pytest

from ls_yolo.config import ConfigError
from ls_yolo.projects import config
from ls_yolo.projects.config import Storage

DEMO = """title: Demo
description: |
  Boxes.
models: [coco, boats]
storage: {path: demo/}
label_config: |
  <View>
    <Image name="image" value="$image"/>
    <RectangleLabels name="label" toName="image"><Label value="Person"/></RectangleLabels>
  </View>
"""


@pytest.fixture
def write(tmp_path):
    def write(name="demo.yaml", text=DEMO):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_a_project_is_read_with_its_defaults(write):
    (project,) = config.read(write())
    assert project.title == "Demo"
    assert project.models == ("coco", "boats")
    assert project.storage == Storage("demo")
    assert project.predict
    # Without blanks around them, so that they equal what Label Studio gives back.
    assert project.description == "Boxes."
    assert project.label_config.startswith("<View>")
    assert project.label_config.endswith("</View>")


def test_what_a_project_is_found_again_by_is_as_label_studio_stores_it(write):
    text = DEMO.replace("title: Demo", 'title: " Cafe\\u0301 \\n"')
    (project,) = config.read(write(text=text.replace("{path: demo/}", '{path: "demo/ \\n"}')))
    assert project.title == "Caf\u00e9"
    assert project.storage == Storage("demo")


def test_titles_that_differ_in_blanks_alone_are_the_same(write, tmp_path):
    write("a.yaml")
    write("b.yaml", DEMO.replace("title: Demo", "title: 'Demo '"))
    with pytest.raises(ConfigError, match="title 'Demo' is taken"):
        config.read(tmp_path)


def test_models_and_storage_may_be_left_out(write):
    (project,) = config.read(write(text="title: abc\nlabel_config: <View/>\npredict: false\n"))
    assert (project.models, project.storage, project.predict) == ((), None, False)


def test_a_folder_is_read_in_the_order_of_its_file_names(write, tmp_path):
    write("b.yml", DEMO.replace("Demo", "Second"))
    write("a.yaml", DEMO.replace("Demo", "First"))
    write("readme.md", "not YAML: [")
    assert [project.title for project in config.read(tmp_path)] == ["First", "Second"]


def test_an_empty_folder_has_no_projects(tmp_path):
    assert config.read(tmp_path) == []


def test_all_files_are_read_before_their_faults_are_told(write, tmp_path):
    write("a.yaml", DEMO.replace("Demo", "ab"))
    write("b.yaml")
    write("c.yaml")
    with pytest.raises(ConfigError) as caught:
        config.read(tmp_path)
    short, twin = str(caught.value).splitlines()
    assert short.startswith(f"{tmp_path}/a.yaml:1: title: found 'ab'")
    assert (
        twin == f"{tmp_path}/c.yaml: title 'Demo' is taken by {tmp_path}/b.yaml; expected another"
    )


def test_a_labeling_config_that_is_no_xml_is_refused_with_its_line(write):
    with pytest.raises(ConfigError, match=r"demo\.yaml:6: label_config: .*cannot be read"):
        config.read(write(text=DEMO.replace("</View>", "")))


def test_a_regex_that_is_none_is_refused_with_its_line(write):
    with pytest.raises(ConfigError, match=r"demo\.yaml:5: storage\.regex: found '\[', expected"):
        config.read(write(text=DEMO.replace("{path: demo/}", "{path: demo, regex: '['}")))


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        *[(name, True) for name in ("a.jpg", "a.JPEG", "a b.Png", "a.tif", "a.tiff", "a.webp")],
        *[(name, False) for name in ("a.txt", "a.jpg.part", "jpg", "._a.jpg")],
    ],
)
def test_the_usual_image_files_become_tasks(name, taken):
    assert bool(re.match(config.IMAGES, name)) is taken
