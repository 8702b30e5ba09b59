"""Configuration files: every error names file, line, what was found and what was expected."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ls_yolo import config, text
from ls_yolo.config import ConfigError


def error_of(text, name="models"):
    with pytest.raises(ConfigError) as caught:
        config.parse(text, name, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize("name", ["models", "projects"])
def test_the_schemas_are_valid_schemas_in_which_every_rule_says_what_it_expects(name):
    schema = config.schema(name)
    Draft202012Validator.check_schema(schema)

    def walk(rule):
        assert rule.get("description"), rule
        for key in ("items", "propertyNames", "additionalProperties"):
            if isinstance(rule.get(key), dict):
                walk(rule[key])
        for inner in rule.get("properties", {}).values():
            walk(inner)

    walk(schema)


def test_a_valid_file_is_read_and_knows_where_its_parts_stand():
    text = "a:\n  weights: a.pt\n  names:\n    0: person\n    10: car\n"
    document = config.parse(text, "models", "f.yaml")
    assert document.data == {"a": {"weights": "a.pt", "names": {"0": "person", "10": "car"}}}
    assert document.where("a", "names", "10") == "f.yaml:5: a.names.10: "
    assert document.where() == "f.yaml:1: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n  weight: a.pt\n", "f.yaml:2: a.weight: is not known; did you mean 'weights'?"),
        (
            "a:\n  zzz: 1\n  weights: a.pt\n",
            "f.yaml:2: a.zzz: is not known; expected one of weights",
        ),
        ("a:\n  conf: 0.4\n", "f.yaml:1: a: 'weights' is missing"),
        (
            "a:\n  weights: a.pt\n  conf: 4\n",
            "f.yaml:3: a.conf: found 4, expected the lowest score",
        ),
        ("a:\n  weights: a.pt\n  conf: yes\n", "f.yaml:3: a.conf: found True, expected"),
        (
            "a:\n  weights: a.pt\n  imgsz: 641\n",
            "f.yaml:3: a.imgsz: found 641, expected the longer",
        ),
        (
            "a:\n  weights: a.onnx\n",
            "f.yaml:2: a.weights: found 'a.onnx', expected the weights file",
        ),
        (
            "a:\n  weights: a.pt\n  sha256: abc\n",
            "f.yaml:3: a.sha256: found 'abc', expected the SHA",
        ),
        (
            "a:\n  weights: a.pt\n  task: depth\n",
            "f.yaml:3: a.task: found 'depth', expected what the",
        ),
        (
            "a: {weights: a.pt}\nb c: {weights: a.pt}\n",
            "f.yaml:2: b c: found 'b c', expected a model",
        ),
        (
            "a:\n  weights: a.pt\n  names:\n    x: y\n",
            "f.yaml:4: a.names.x: found 'x', expected a cl",
        ),
        (
            "a:\n  weights: a.pt\n  names:\n    0: ''\n",
            "f.yaml:4: a.names.0: found '', expected a cla",
        ),
        ("a: b.pt\n", "f.yaml:1: a: found 'b.pt', expected an entry"),
        ("- a\n", "f.yaml:1: found ['a'], expected a mapping from model names"),
        ("{}\n", "f.yaml:1: found {}, expected a mapping"),
    ],
)
def test_an_error_names_file_line_part_what_was_found_and_what_was_expected(text, message):
    assert any(line.startswith(message) for line in error_of(text).splitlines())


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "null\n", "---\n"])
def test_an_empty_file_says_what_belongs_in_it(text):
    assert error_of(text) == "f.yaml: empty; expected a mapping from model names to their entries"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a:\n  weights: a.pt\nb: {weights: b.pt}\na: {weights: c.pt}\n",
            "f.yaml:4: .*'a' is here twice, first in line 1",
        ),
        (
            "a:\n  weights: a.pt\n  names: {0: x, '0': y}\n",
            "f.yaml:3: .*'0' is here twice, first in line 3",
        ),
        ("a:\n\tweights: a.pt\n", "f.yaml:2: not valid YAML: "),
        ("a: {weights: a.pt\n", "f.yaml:2: not valid YAML: "),
        ("? [x]\n: {weights: a.pt}\n", "f.yaml:1: not valid YAML: a key must be text"),
        ("a: !!python/object/apply:os.system [id]\n", "f.yaml:1: not valid YAML: "),
        ("a:\n  weights: a.pt\n  conf: .nan\n", "f.yaml:3: not valid YAML: '.nan' is not a number"),
        ("a:\n  weights: a.pt\n  iou: .inf\n", "f.yaml:3: not valid YAML: '.inf' is not a number"),
        ("a: *b\n", "f.yaml:1: not valid YAML: "),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_line(text, message):
    assert re.match(message, error_of(text))


def test_every_fault_has_a_line_of_its_own():
    lines = error_of("a:\n  weights: 1\n  conf: 7\nb: {}\n").splitlines()
    assert [line.split(": ")[0] for line in lines] == ["f.yaml:2", "f.yaml:3", "f.yaml:4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "title: ab\nlabel_config: <View/>\n",
            "f.yaml:1: title: found 'ab', expected the project's title",
        ),
        ("title: abc\n", "f.yaml:1: 'label_config' is missing"),
        ("title:\nlabel_config: x\n", "f.yaml:1: title: found None, expected the project's"),
        ("title: '  a  '\nlabel_config: x\n", "f.yaml:1: title: found '  a  ', expected the"),
        (
            "title: abc\nlabel_config: x\nmodels: a\n",
            "f.yaml:3: models: found 'a', expected the models",
        ),
        (
            "title: abc\nlabel_config: x\nmodels: [a, a]\n",
            "f.yaml:3: models: found ['a', 'a'], expected",
        ),
        (
            "title: abc\nlabel_config: x\nmodels:\n- a\n- b+c\n",
            "f.yaml:5: models.1: found 'b+c', expect",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: ../x}\n",
            "f.yaml:3: storage.path: found '../x'",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: /x}\n",
            "f.yaml:3: storage.path: found '/x'",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: a/./b}\n",
            "f.yaml:3: storage.path: found 'a/./b'",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: a/..}\n",
            "f.yaml:3: storage.path: found 'a/..'",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: 'a/.. '}\n",
            "f.yaml:3: storage.path: found 'a/.. '",
        ),
        (
            "title: abc\nlabel_config: x\nstorage: {path: ' a'}\n",
            "f.yaml:3: storage.path: found ' a'",
        ),
        (
            'title: abc\nlabel_config: x\nmodels: ["coco\\n"]\n',
            "f.yaml:3: models.0: found 'coco\\n', expected a name",
        ),
    ],
)
def test_projects_are_checked_the_same_way(text, message):
    assert error_of(text, "projects").startswith(message)


WORDS = """on off yes no true null ~ 010 1.10 0x1f 1e3 1_0 12:30 .5 .inf .nan 2020-01-01 2020-13-45
= 0o7 +1 y N"""


MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@given(st.sampled_from(WORDS.split()) | st.from_regex(MODEL, fullmatch=True))
def test_a_name_is_the_text_that_is_written_whatever_yaml_takes_it_for(word):
    if re.fullmatch(MODEL, word):  # a model may be called so
        document = config.parse(f"{word}: {{weights: a.pt}}\n", "models", "f.yaml")
        assert list(document.data) == [word]
    text = f"a:\n  weights: a.pt\n  names:\n    0: {word}\n"
    assert config.parse(text, "models", "f.yaml").data["a"]["names"] == {"0": word}
    project = f"title: abc\nlabel_config: x\nmodels: [{word}]\n"
    with contextlib.suppress(ConfigError):  # no model is called so
        assert config.parse(project, "projects", "f.yaml").data["models"] == [word]


@given(st.text(min_size=1).filter(str.isprintable))
def test_any_printable_class_name_is_read_as_it_is_written(name):
    text = f"a:\n  weights: a.pt\n  names:\n    0: {json.dumps(name, ensure_ascii=False)}\n"
    assert config.parse(text, "models", "f.yaml").data["a"]["names"] == {"0": name}


def test_names_that_yaml_takes_for_one_are_two():
    text = "on: {weights: a.pt}\nyes: {weights: b.pt}\n8: {weights: c.pt}\n010: {weights: d.pt}\n"
    assert list(config.parse(text, "models", "f.yaml").data) == ["on", "yes", "8", "010"]


def test_entries_may_share_what_they_have_in_common_by_a_merge():
    text = "a: &a {weights: a.pt, conf: 0.3}\n010:\n  <<: *a\n  conf: 0.5\n  names: {0: no}\n"
    data = config.parse(text, "models", "f.yaml").data
    assert data["010"] == {"weights": "a.pt", "conf": 0.5, "names": {"0": "no"}}


def test_a_file_that_is_missing_or_no_text_is_said_to_be_so(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: not found; expected a YAML file there"):
        config.load(tmp_path / "none.yaml", "models")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path, "models")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"b\.yaml: cannot be read"):
        config.load(tmp_path / "b.yaml", "models")


@given(st.text())
def test_any_text_is_read_or_refused_with_the_name_of_the_file(text):
    try:
        config.parse(text, "models", "f.yaml")
    except ConfigError as error:
        assert all(line.startswith("f.yaml") for line in str(error).split("\nf.yaml")[:1])


def test_the_nearest_word_is_found_in_any_case_and_a_far_one_is_not():
    assert text.nearest("PERSN", ["Person", "Car"]) == "; did you mean 'Person'?"
    assert text.nearest("xylophone", ["Person", "Car"]) == ""
