"""models.yaml: names, weights, thresholds, versions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo import files
from ls_yolo.config import ConfigError
from ls_yolo.models import config
from ls_yolo.serving.loading import join_versions
from ls_yolo.serving.registry import UnknownModel


@pytest.fixture
def read(models_dir):
    def read(text, threshold=0.5):
        path = models_dir / "models.yaml"
        path.write_text(text)
        return config.Source(path, models_dir, threshold).entries()

    return read


def version(read, text, threshold=0.5):
    return read(text, threshold)["a"].version


def test_an_entry_has_its_defaults(read, write_weights):
    weights = write_weights("a.pt", {0: "person"})
    entry = read("a: {weights: a.pt}", 0.3)["a"]
    assert entry.weights == weights
    assert (entry.conf, entry.iou, entry.imgsz, entry.names) == (0.3, 0.7, None, {})


def test_an_entry_has_what_it_says(read, write_weights):
    write_weights("a.pt", {0: "person"})
    entry = read("a: {weights: a.pt, conf: 0, iou: 1, imgsz: 1280, names: {0: crew}}")["a"]
    assert (entry.conf, entry.iou, entry.imgsz, entry.names) == (0.0, 1.0, 1280, {0: "crew"})


def test_entries_keep_the_order_of_the_file(read, write_weights):
    write_weights("w.pt", {0: "person"})
    assert list(read("b: {weights: w.pt}\na: {weights: w.pt}\nc: {weights: w.pt}")) == [
        "b",
        "a",
        "c",
    ]


def test_missing_weights_are_named_with_what_is_there(read, write_weights, models_dir):
    write_weights("other.pt", {0: "person"})
    with pytest.raises(ConfigError) as caught:
        read("\na: {weights: best.pt}")
    assert str(caught.value) == (
        f"{models_dir}/models.yaml:2: a.weights: 'best.pt' is not in {models_dir}; "
        "put it there or remove the entry. It has: other.pt"
    )


@pytest.mark.parametrize(
    "path", ["../outside.pt", "/etc/outside.pt", "link.pt", "x/../../outside.pt"]
)
def test_weights_outside_the_models_folder_are_refused(read, models_dir, path):
    (models_dir.parent / "outside.pt").write_text("{}")
    (models_dir / "link.pt").symlink_to(models_dir.parent / "outside.pt")
    with pytest.raises(
        ConfigError, match=r"a\.weights: '.*' lies outside .*; expected a file inside"
    ):
        read(f"a: {{weights: {path}}}")


def test_a_link_that_stays_inside_is_followed(read, write_weights, models_dir):
    write_weights("v1/a.pt", {0: "person"})
    (models_dir / "a.pt").symlink_to("v1/a.pt")
    assert read("a: {weights: a.pt}")["a"].weights == models_dir / "v1" / "a.pt"


def test_a_wrong_hash_is_refused_and_the_right_one_taken_in_any_case(read, write_weights):
    sha256 = files.hash_file(write_weights("a.pt", {0: "person"}))
    assert read(f"a: {{weights: a.pt, sha256: '{sha256.upper()}'}}")["a"].sha256 == sha256
    with pytest.raises(ConfigError, match=rf"a\.sha256: expected {'0' * 64}, but .* has {sha256}"):
        read(f"a: {{weights: a.pt, sha256: '{'0' * 64}'}}")


def test_every_fault_is_reported_at_once(read):
    with pytest.raises(ConfigError) as caught:
        read("a: {weights: a.pt}\nb: {weights: b.pt}")
    assert len(str(caught.value).splitlines()) == 2


def test_a_version_is_name_and_twelve_digits(read, write_weights):
    write_weights("a.pt", {0: "person"})
    name, _, digits = version(read, "a: {weights: a.pt}").partition("@")
    assert name == "a"
    assert len(digits) == 12
    assert int(digits, 16) >= 0


@pytest.mark.parametrize(
    "change", ["conf: 0.4", "iou: 0.4", "imgsz: 320", "names: {0: crew}", "slice: 640"]
)
def test_the_version_changes_with_each_setting_that_changes_answers(read, write_weights, change):
    write_weights("a.pt", {0: "person"})
    assert version(read, f"a: {{weights: a.pt, {change}}}") != version(read, "a: {weights: a.pt}")


def test_the_version_changes_with_the_weights_and_with_the_general_threshold(read, write_weights):
    text = "a: {weights: a.pt}"
    write_weights("a.pt", {0: "person"})
    first = version(read, text)
    assert version(read, text, 0.6) != first
    write_weights("a.pt", {0: "person"}, boxes=[])
    assert version(read, text) != first


def test_the_version_changes_with_nothing_else(read, write_weights):
    weights = write_weights("a.pt", {0: "person"})
    first = version(read, "a: {weights: a.pt}")
    sha256 = files.hash_file(weights)
    write_weights("b.pt", {0: "person"})
    for same in (
        f"a: {{weights: a.pt, sha256: '{sha256}'}}",
        "a: {weights: b.pt}",
        "a: {weights: a.pt, task: detect}",
        "a: {weights: a.pt, conf: 0.50, iou: 0.7, names: {}}",
        "b: {weights: b.pt}\na: {weights: a.pt}",
    ):
        assert version(read, same) == first
    one = version(read, "a: {weights: a.pt, names: {0: x, 1: y}}")
    assert version(read, "a: {weights: a.pt, names: {1: y, 0: x}}") == one
    assert version(read, "a: {weights: a.pt, conf: 1}") == version(
        read, "a: {weights: a.pt, conf: 1.0}"
    )


def test_weights_for_another_task_than_the_entry_says_are_refused(make_registry, write_weights):
    write_weights("a.pt", {0: "person"})
    with pytest.raises(
        ConfigError, match=r"task of a: found 'pose', but a\.pt is a model for 'detect'"
    ):
        make_registry("a: {weights: a.pt, task: pose}")


@given(st.permutations(["b@2", "a@1", "c@3", "a@1"]))
def test_versions_are_joined_the_same_way_in_any_order(versions):
    assert join_versions(versions) == "a@1+b@2+c@3"


def test_every_model_is_loaded_and_warmed_up_before_it_is_asked(
    make_registry, write_weights, engine_calls
):
    write_weights("a.pt", {0: "person"})
    write_weights("b.pt", {0: "head"})
    models = make_registry("a: {weights: a.pt}\nb: {weights: b.pt}")
    assert engine_calls == [
        {"weights": "a.pt", "warm_up": True},
        {"weights": "b.pt", "warm_up": True},
    ]
    assert [model.entry.name for model in models] == ["a", "b"]


def test_classes_are_renamed(make_registry, write_weights):
    write_weights("a.pt", {0: "person", 1: "car"})
    assert make_registry("a: {weights: a.pt, names: {0: crew}}").get("a").names == {
        0: "crew",
        1: "car",
    }


def test_a_new_name_for_a_class_that_is_not_there_is_refused(make_registry, write_weights):
    write_weights("a.pt", {0: "person"})
    with pytest.raises(
        ConfigError, match=r"names of a: found class 3, but a\.pt has classes 0 to 0"
    ):
        make_registry("a: {weights: a.pt, names: {3: crew}}")


def test_the_first_model_is_the_default_unless_one_is_named(make_registry, write_weights):
    write_weights("w.pt", {0: "person"})
    text = "b: {weights: w.pt}\na: {weights: w.pt}"
    assert make_registry(text).default == "b"
    assert make_registry(text, default="a").default == "a"
    with pytest.raises(UnknownModel, match="DEFAULT_MODEL: found 'c', expected one of b, a"):
        make_registry(text, default="c")


def test_an_unknown_model_is_answered_with_those_that_are_there(make_registry, write_weights):
    write_weights("w.pt", {0: "person"})
    models = make_registry("coco: {weights: w.pt}\nboats: {weights: w.pt}")
    with pytest.raises(UnknownModel) as caught:
        models.get("boat")
    assert str(caught.value) == (
        "no model is called 'boat'; did you mean 'boats'?; models.yaml has: coco, boats"
    )


def test_a_weights_file_is_no_model_unless_that_is_allowed(make_registry, write_weights):
    write_weights("a.pt", {0: "person"})
    models = make_registry("a: {weights: a.pt}")
    with pytest.raises(UnknownModel, match=r"no model is called 'a\.pt'"):
        models.by_path("a.pt")
    assert models.by_path("a") is models.get("a")


def test_where_it_is_allowed_a_control_may_name_a_weights_file(make_registry, write_weights):
    write_weights("a.pt", {0: "person"})
    write_weights("more/b.pt", {0: "head"})
    models = make_registry("a: {weights: a.pt}", custom=True, conf=0.35)
    found = models.by_path("more/b.pt")
    assert found.version.startswith("more/b.pt@")
    assert found.entry.conf == 0.35
    assert models.by_path("more/../more/b.pt") is found
    assert models.by_path("a") is models.get("a")
    with pytest.raises(UnknownModel):
        models.get("more/b.pt")


@pytest.mark.parametrize("path", ["../b.pt", "/etc/b.pt", "link.pt", "a.txt", "none.pt", ".", ""])
def test_even_then_only_a_weights_file_of_the_models_folder(
    make_registry, write_weights, models_dir, path
):
    write_weights("a.pt", {0: "person"})
    write_weights("a.txt", {0: "person"})
    write_weights("../b.pt", {0: "person"})
    (models_dir / "link.pt").symlink_to("../b.pt")
    models = make_registry("a: {weights: a.pt}", custom=True)
    with pytest.raises(UnknownModel, match=r"is neither in models\.yaml nor a \.pt file inside"):
        models.by_path(path)


def test_two_first_requests_for_a_weights_file_load_it_once(
    make_registry, write_weights, engine_calls
):
    write_weights("a.pt", {0: "person"})
    write_weights("b.pt", {0: "head"})
    models = make_registry("a: {weights: a.pt}", custom=True)
    start = threading.Barrier(8)

    def ask():
        start.wait()
        return models.by_path("b.pt")

    with ThreadPoolExecutor(8) as pool:
        found = {id(future.result()) for future in [pool.submit(ask) for _ in range(8)]}
    assert len(found) == 1
    assert [call["weights"] for call in engine_calls] == ["a.pt", "b.pt"]


def test_weights_that_cannot_be_loaded_are_an_error_that_names_the_file(make_registry, models_dir):
    (models_dir / "a.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ConfigError, match=r"a\.pt: cannot be loaded"):
        make_registry("a: {weights: a.pt}")
