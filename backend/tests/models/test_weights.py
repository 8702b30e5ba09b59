"""Looking into weights files, which may have been made to run code when they are read."""

from __future__ import annotations

import json
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.tests.models.checkpoints import Storage, write
from ls_yolo.cli import main
from ls_yolo.cli.weights import parse_names
from ls_yolo.models import weights
from ls_yolo.models.weights import WeightsError


def test_inspect_tells_what_the_file_says(tmp_path, model):
    content = {
        "ema": None,
        "model": model(
            "DetectionModel",
            names={0: "person", 1: "boat"},
            _modules=OrderedDict(a=Storage("0"), b=Storage("1"), c=Storage("0")),
        ),
        "train_args": {"imgsz": 640, "model": "yolov8n.yaml"},
        "version": "8.4.190",
        "date": "2026-01-01",
    }
    found = weights.inspect(write(tmp_path / "best.pt", content, **{"0": 10, "1": 5}))
    assert (found.task, found.names, found.parameters) == (
        "detect",
        {0: "person", 1: "boat"},
        15,
    )
    assert (found.imgsz, found.version, found.model) == ("640", "8.4.190", "yolov8n.yaml")
    assert len(found.sha256) == 64
    assert found.text().splitlines()[-1] == "    1 boat"


@pytest.mark.parametrize(("name", "task"), weights.TASKS.items())
def test_the_task_is_told_by_the_class(tmp_path, model, name, task):
    path = write(tmp_path / "a.pt", {"model": model(name, names=["a"])})
    found = weights.inspect(path)
    assert (found.task, found.names) == (task, {0: "a"})


class Trap:
    """Its pickle makes a file when it is read as usual."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_inspect_runs_no_code_of_the_file(tmp_path, model):
    trap = tmp_path / "owned"
    content = {"model": model("DetectionModel", names={0: "a"}), "other": Trap(trap)}
    path = write(tmp_path / "a.pt", content)
    assert weights.inspect(path).names == {0: "a"}
    assert not trap.exists()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("best/data.pkl")
    pickle.loads(pickled)["other"].close()
    assert trap.exists(), "the trap works"


def test_inspect_imports_nothing(tmp_path, model, monkeypatch):
    path = write(tmp_path / "a.pt", {"model": model("DetectionModel", names={0: "a"})})
    monkeypatch.undo()
    assert "ultralytics" not in sys.modules
    weights.inspect(path)
    assert "ultralytics" not in sys.modules


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file; copy or download it again"),
        (b"PK\x03\x04 cut off", "cannot be read as weights"),
        (pickle.dumps({"model": 1}), "cannot be read as weights"),
    ],
)
def test_what_is_no_weights_file_is_said_to_be_so(tmp_path, content, message):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        weights.inspect(path)


def test_a_file_without_a_model_of_ultralytics_is_said_to_be_so(tmp_path):
    path = write(tmp_path / "a.pt", {"state_dict": {}})
    with pytest.raises(WeightsError, match="found NoneType where ultralytics keeps its model"):
        weights.inspect(path)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "found a Git LFS pointer.*git lfs pull"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "found a web page saved as weights; download"),
        (b"<html><body>Sign in</body></html>", "found a web page saved as weights"),
    ],
)
def test_what_was_downloaded_in_place_of_weights_is_told(tmp_path, content, message):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        weights.inspect(path)


def test_a_torchscript_export_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/constants.pkl", pickle.dumps(()))
    with pytest.raises(WeightsError, match=r"found a TorchScript export.*exported from"):
        weights.inspect(tmp_path / "a.pt")


@pytest.fixture
def foreign(monkeypatch):
    """Makes an object of a class of any module, which is there only while it is pickled."""

    def make(module, name, **state):
        parts = module.split(".")
        for number in range(1, len(parts) + 1):
            whole = ".".join(parts[:number])
            monkeypatch.setitem(sys.modules, whole, types.ModuleType(whole))
        kind = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, kind)
        found = kind()
        found.__dict__.update(state)
        return found

    return make


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("Detect", "weights of the YOLOv5 repository.*train the model anew"),
        ("IDetect", "weights of the YOLOv7 repository.*train the model anew"),
    ],
)
def test_weights_of_another_repository_are_told(tmp_path, foreign, kind, message):
    model = foreign("models.yolo", kind, names=["a"])
    with pytest.raises(WeightsError, match=message):
        weights.inspect(write(tmp_path / "a.pt", {"model": model}))


class Tensor:
    """Pickled as torch pickles a tensor."""

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, ()


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s}, lambda s: {"state_dict": s}])
def test_a_state_dict_is_told(tmp_path, foreign, wrap):
    foreign("torch._utils", "_rebuild_tensor_v2")
    state = OrderedDict({"model.0.weight": Tensor()})
    with pytest.raises(WeightsError, match=r"found a state dict.*save the whole checkpoint"):
        weights.inspect(write(tmp_path / "a.pt", wrap(state)))


@pytest.mark.parametrize("whole", [True, False])
def test_a_class_of_ones_own_is_named_with_the_setting_and_its_risk(
    tmp_path, foreign, model, monkeypatch, whole
):
    own = foreign("mine.blocks", "Attention", names={0: "a"})
    content = {"model": own if whole else model("DetectionModel", names={0: "a"}, block=own)}
    path = write(tmp_path / "a.pt", content)
    with pytest.raises(
        WeightsError,
        match=r"mine\.blocks\.Attention.*ALLOW_UNSAFE_WEIGHTS=true, which lets it run any code.*"
        "mine installed",
    ):
        weights.inspect(path)
    monkeypatch.setenv("ALLOW_UNSAFE_WEIGHTS", "true")
    assert weights.inspect(path).names == {0: "a"}


def test_the_error_of_an_engine_is_what_inspect_says(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(LFS)
    with pytest.raises(WeightsError) as told:
        weights.inspect(path)
    assert weights.explain(path, RuntimeError("x")) == str(told.value)


def test_what_ultralytics_says_names_the_file_and_not_the_name_that_it_was_given(tmp_path, model):
    path = write(tmp_path / "a.pt", {"model": model("DetectionModel", names={0: "a"})})
    with weights.alias(path) as link:
        text = weights.explain(path, RuntimeError(f"ERROR {link} is broken"))
    assert text == f"{path}: cannot be loaded as YOLO weights: ERROR {path} is broken"


@pytest.mark.parametrize(
    "name", ["own-yolov5s.pt", "it's.pt", " a .pt", "yolov8n.pt", "x-world.pt"]
)
def test_ultralytics_gets_a_path_that_leads_to_the_file_and_bears_no_name_that_it_knows(
    tmp_path, name
):
    (tmp_path / name).write_bytes(name.encode())
    with weights.alias(tmp_path / name) as link:
        assert link.read_bytes() == name.encode()
        assert link.name == "weights.pt"
        assert not {"yolov5", "'", " "} & set(str(link).split("/")[-1])
    assert not link.exists()
    with pytest.raises(FileNotFoundError), weights.alias(tmp_path / "gone.pt"):
        pass


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path, data):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", data)
    with pytest.raises(WeightsError):
        weights.inspect(path)


def test_names_are_given_by_class_index():
    assert parse_names(["0=person", "12=hard hat", "3=a=b"]) == {
        0: "person",
        12: "hard hat",
        3: "a=b",
    }


@pytest.mark.parametrize("word", ["person", "=person", "0=", "0= ", "x=person", "-1=a", "٣=a"])
def test_other_forms_are_refused(word):
    with pytest.raises(WeightsError, match="expected a class index and a name"):
        parse_names([word])


def test_rename_never_writes_over_a_file_nor_names_what_is_not_there(tmp_path, model):
    path = write(tmp_path / "a.pt", {"model": model("DetectionModel", names={0: "a"})})
    before = path.read_bytes()
    with pytest.raises(WeightsError, match="is there already"):
        weights.rename(path, {0: "b"}, path)
    with pytest.raises(WeightsError, match="found no class 7 in it, expected one of 0 to 0"):
        weights.rename(path, {7: "b"}, tmp_path / "b.pt")
    assert path.read_bytes() == before
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize(("value", "flag"), [(None, "1"), ("", "1"), ("false", "1"), ("true", "0")])
def test_weights_are_loaded_restricted_unless_that_is_turned_off(value, flag):
    environ = {} if value is None else {"ALLOW_UNSAFE_WEIGHTS": value}
    environ["ULTRALYTICS_SAFE_LOAD"] = "0"
    weights.safe(environ)
    assert environ["ULTRALYTICS_SAFE_LOAD"] == flag


def test_the_command_prints_text_or_json(tmp_path, model, capsys):
    path = write(tmp_path / "a.pt", {"model": model("PoseModel", names={0: "a"})})
    assert main.main(["weights", "inspect", str(path)]) == 0
    assert "task          pose" in capsys.readouterr().out
    assert main.main(["weights", "inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == {"0": "a"}


@pytest.mark.parametrize("words", [["inspect"], ["rename", "0=a", "-o", "b.pt"]])
def test_a_file_that_is_not_there_ends_with_1_in_one_line(tmp_path, capsys, words):
    action, *more = words
    assert main.main(["weights", action, str(tmp_path / "a.pt"), *more]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/a.pt: cannot be read: No such file or directory\n"
    )
