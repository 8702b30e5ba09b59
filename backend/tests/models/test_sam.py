"""A SAM in models.yaml: what its entry may say, and which weights it takes."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.tests.models.checkpoints import Storage, write
from ls_yolo import config as files
from ls_yolo.cli import main
from ls_yolo.config import ConfigError
from ls_yolo.models import config, sam, weights
from ls_yolo.models.weights import WeightsError

STATE = OrderedDict({"image_encoder.a": Storage("0"), "mask_decoder.b": Storage("0")})
STATE_2 = OrderedDict({"image_encoder.a": Storage("0"), "sam_mask_decoder.b": Storage("0")})


@pytest.fixture
def read(models_dir):
    def read(text):
        path = models_dir / "models.yaml"
        path.write_text(text)
        return config.Source(path, models_dir, 0.5).entries()

    return read


def test_the_schema_and_the_code_know_the_same_architectures_and_keys():
    entry = files.schema("models")["additionalProperties"]["properties"]
    assert tuple(entry["architecture"]["enum"]) == sam.ARCHITECTURES
    assert sam.SAM in entry["task"]["enum"]
    assert set(sam.KEYS) < set(entry)
    for one in sam.ARCHITECTURES:
        assert one in entry["architecture"]["description"]


@pytest.mark.parametrize("architecture", sam.ARCHITECTURES)
def test_the_name_of_the_file_says_which_sam_it_is(read, write_weights, architecture):
    write_weights(f"{architecture}.pt", {})
    entry = read(f"smart: {{weights: {architecture}.pt, task: sam}}")["smart"]
    assert (entry.task, entry.architecture) == ("sam", architecture)


def test_a_key_says_it_for_a_file_of_another_name_and_goes_before_the_name(read, write_weights):
    write_weights("ours/v3.pt", {})
    write_weights("sam_b.pt", {})
    text = "{weights: %s, task: sam, architecture: sam2.1_t}"
    for file in ("ours/v3.pt", "sam_b.pt"):
        assert read(f"smart: {text % file}")["smart"].architecture == "sam2.1_t"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{weights: v3.pt, task: sam}",
         r"2: smart\.weights: 'v3\.pt' does not say which SAM it is; add the key architecture, one "
         r"of mobile_sam, sam_b, "),
        ("{weights: sam_b.pt, task: sam, conf: 0.4}", r"smart\.conf: means nothing for a SAM"),
        ("{weights: sam_b.pt, task: sam, iou: 0.4}", r"smart\.iou: means nothing for a SAM"),
        ("{weights: sam_b.pt, task: sam, names: {0: a}}", r"smart\.names: means nothing for a SAM"),
        ("{weights: sam_b.pt, task: sam, slice: 640}", r"smart\.slice: means nothing for a SAM"),
        ("{weights: sam_b.pt, task: sam, imgsz: 640}",
         r"smart\.imgsz: means nothing .* Such an entry has weights, sha256, task, architecture"),
        ("{weights: a.pt, task: segment, architecture: sam_b}",
         r"smart\.architecture: found 'sam_b' for a model that is no SAM; remove it, or say task:"),
        ("{weights: a.pt, architecture: sam_b}", r"smart\.architecture: found 'sam_b' for a model"),
        ("{weights: a.pt, task: sam, architecture: sam9}",
         r"smart\.architecture: found 'sam9', expected which SAM the weights are for, .*sam2\.1_l"),
    ],
)  # fmt: skip
def test_what_an_entry_of_a_sam_may_not_say_is_an_error_with_its_line(read, entry, said):
    with pytest.raises(ConfigError, match=said):
        read(f"\nsmart: {entry}")


def test_every_fault_of_every_sam_is_reported_at_once(read):
    with pytest.raises(ConfigError) as caught:
        read("a: {weights: a.pt, task: sam}\nb: {weights: sam_b.pt, task: sam, conf: 1}")
    assert len(str(caught.value).splitlines()) == 2


def test_the_version_is_that_of_weights_and_architecture_alone(read, write_weights, models_dir):
    write_weights("a.pt", {})
    text = "smart: {weights: a.pt, task: sam, architecture: %s}"
    first = read(text % "sam_b")["smart"].version
    assert read(text % "sam_l")["smart"].version != first
    entry = config.Source(models_dir / "models.yaml", models_dir, 0.9)
    read(text % "sam_b")
    assert entry.entries()["smart"].version == first  # no threshold is a SAM's
    write_weights("a.pt", {0: "other"})
    assert read(text % "sam_b")["smart"].version != first


@pytest.mark.parametrize("content", [STATE, {"model": STATE_2}, {"model": STATE, "epoch": 3}])
def test_weights_of_a_sam_are_known_for_what_they_are(tmp_path, content):
    path = write(tmp_path / "mobile_sam.pt", content, **{"0": 7})
    found = weights.inspect(path)
    assert (found.task, found.names, found.parameters, len(found.sha256)) == ("sam", {}, 7, 64)
    assert weights.inspect_for(path, sam=True) == found
    with pytest.raises(WeightsError, match=r"found weights of a SAM .*; say `task: sam` in its"):
        weights.inspect_for(path, sam=False)
    assert "say `task: sam`" in weights.explain(path, ValueError("no"))
    with pytest.raises(WeightsError, match="found weights of a SAM"):
        weights.rename(path, {0: "a"}, tmp_path / "new.pt")


def test_a_yolo_is_no_sam(tmp_path, model):
    path = write(tmp_path / "sam_b.pt", {"model": model("DetectionModel", names={0: "a"})})
    with pytest.raises(WeightsError, match="found a model of ultralytics for 'detect', expected"):
        weights.inspect_for(path, sam=True)


def test_check_and_models_take_a_sam_and_refuse_what_is_none(
    models_dir, monkeypatch, capsys, model
):
    monkeypatch.setenv("MODELS_CONFIG", str(models_dir / "models.yaml"))
    monkeypatch.setenv("MODEL_ROOT", str(models_dir))
    monkeypatch.setenv("BACKEND_URL", "http://127.0.0.1:9")
    (models_dir / "models.yaml").write_text("smart: {weights: sam_b.pt, task: sam}")
    write(models_dir / "sam_b.pt", STATE, **{"0": 7})
    assert main.main(["check"]) == 0
    assert main.main(["models"]) == 0
    assert "smart@" in capsys.readouterr().out
    write(models_dir / "sam_b.pt", {"model": model("DetectionModel", names={0: "a"})})
    assert main.main(["check"]) == 78
    assert main.main(["models"]) == 1
    (models_dir / "models.yaml").write_text("own: {weights: sam_b.pt}")
    write(models_dir / "sam_b.pt", STATE, **{"0": 7})
    assert main.main(["check"]) == 78
    assert "say `task: sam`" in capsys.readouterr().err


SHAPES = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=6
)


@given(SHAPES, SHAPES, st.sets(st.sampled_from("uvw")))
def test_tensors_that_are_not_those_of_the_architecture_are_told_apart(found, wanted, later):
    said = sam.difference(found, wanted, later)
    assert (said == "") == (found == wanted and not later)
    assert sam.difference(wanted | dict.fromkeys(later, (1, 1)), wanted, later) == ""
