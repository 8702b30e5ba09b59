"""``ls-yolo predict``, ``models`` and ``labels``, as a person calls them."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.cli import labels, main, predict
from ls_yolo.engines import load as loader
from ls_yolo.models import weights
from ls_yolo.results import Boxes, Classes, Keypoints, Mask, Masks, OrientedBoxes
from ls_yolo.serving.mapping import mapping

LABELS = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image">
<Label value="person"/><Label value="Hard Hat"/><Label value="buss"/></RectangleLabels></View>"""
ROWS = [
    {"name": "coco", "version": "coco@1", "state": "ready", "error": "", "engine": "openvino",
     "memory_mb": 90, "classes": ["person", "hard_hat", "bus", "train"]},
    {"name": "head", "version": "head@1", "state": "unloaded", "error": ""},
]  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path, models_dir):
    """As in the backend's container, where no backend answers."""
    monkeypatch.setenv("MODELS_CONFIG", str(models_dir / "models.yaml"))
    monkeypatch.setenv("MODEL_ROOT", str(models_dir))
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    monkeypatch.setenv("BACKEND_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BASIC_AUTH_USER", "user")
    monkeypatch.setenv("BASIC_AUTH_PASS", "secret")


@pytest.fixture
def coco(models_dir, engine_calls, write_weights, monkeypatch):
    """One model; its weights, which are not real here, tell their classes."""
    write_weights(
        "coco.pt",
        {0: "person", 1: "bus"},
        boxes=[[10, 20, 60, 80, 0.9, 0], [1, 2, 3, 4, 0.6, 1]],
    )
    (models_dir / "models.yaml").write_text("coco: {weights: coco.pt, conf: 0.5}\n")
    monkeypatch.setattr(
        weights,
        "inspect",
        lambda path, sha256="": SimpleNamespace(
            names={int(k): v for k, v in json.loads(path.read_text())["names"].items()},
            task="detect",
        ),
    )


@pytest.fixture
def backend(monkeypatch, loopback):
    """A running backend that says ``ROWS`` to who knows the password."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"status": "ready", "loaded": 2, "failed": 0}
            if self.headers["Authorization"] == "Basic dXNlcjpzZWNyZXQ=":
                body["models"] = ROWS
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    monkeypatch.setenv("BACKEND_URL", f"http://127.0.0.1:{loopback(Handler).server_port}")


@pytest.fixture
def picture(tmp_path):
    def make(name="a.jpg", width=200, height=100):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
        return path

    return make


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# predict


def test_predict_prints_a_line_for_each_image(coco, picture, capsys):
    path = picture()
    assert main.main(["predict", str(path)]) == 0
    (row,) = lines(capsys)
    assert row.pop("model").startswith("coco@")
    assert row == {
        "image": str(path),
        "width": 200,
        "height": 100,
        "boxes": [
            {"label": "person", "score": 0.9, "box": [10.0, 20.0, 60.0, 80.0]},
            {"label": "bus", "score": 0.6, "box": [1.0, 2.0, 3.0, 4.0]},
        ],
    }


def test_predict_takes_the_images_of_a_folder_in_order(coco, picture, capsys, tmp_path):
    for name in ("d/b.png", "d/a.jpg", "d/c.bmp"):
        picture(name)
    (tmp_path / "d" / "notes.txt").write_text("")
    assert main.main(["predict", str(tmp_path / "d")]) == 0
    assert [row["image"][-5:] for row in lines(capsys)] == ["a.jpg", "b.png", "c.bmp"]


def test_predict_keeps_the_order_of_many_images(coco, picture, capsys, tmp_path):
    for number in range(40):
        picture(f"d/{number:02}.png")
    assert main.main(["predict", str(tmp_path / "d")]) == 0
    rows = lines(capsys)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert len(rows) == 40


def test_predict_has_a_threshold_of_its_own(coco, picture, capsys):
    assert main.main(["predict", "--conf", "0.7", str(picture())]) == 0
    assert [box["label"] for box in lines(capsys)[0]["boxes"]] == ["person"]


@pytest.mark.parametrize("conf", ["2", "-1", "nan", "high"])
def test_predict_refuses_a_threshold_that_is_none(conf, capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["predict", "a.jpg", f"--conf={conf}"])
    assert caught.value.code == 2
    assert f"found {conf!r}, expected a number from 0 to 1" in capsys.readouterr().err


def test_predict_loads_the_model_that_is_asked_for_and_no_other(
    coco, models_dir, write_weights, engine_calls, picture, capsys
):
    write_weights("head.pt", {0: "head"}, boxes=[[0, 0, 9, 9, 0.8, 0]])
    with (models_dir / "models.yaml").open("a") as file:
        file.write("head: {weights: head.pt}\n")
    assert main.main(["predict", "--model", "head", str(picture())]) == 0
    assert lines(capsys)[0]["boxes"][0]["label"] == "head"
    assert {call["weights"] for call in engine_calls} == {"head.pt"}


def test_predict_runs_the_model_with_the_settings_of_the_service(coco, picture, monkeypatch):
    made = []
    load = loader.load_engine
    monkeypatch.setattr(
        loader, "load_engine", lambda *words: made.append(words[1:]) or load(*words)
    )
    for name, value in {"DEVICE": "cpu", "ENGINE": "openvino", "PRECISION": "int8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_FILES_DOCUMENT_ROOT", "/images")
    monkeypatch.setenv("CALIBRATION_IMAGES", "mine")
    assert main.main(["predict", str(picture())]) == 0
    ((_, _, options),) = made
    assert (options.device, options.engine, options.precision) == ("cpu", "openvino", "int8")
    assert options.images == Path("/images/mine")


def test_predict_of_a_model_that_is_not_there_names_the_nearest(coco, picture, capsys):
    assert main.main(["predict", "--model", "coc", str(picture())]) == 1
    assert "'coc'" in (text := capsys.readouterr().err) and "coco" in text


def test_predict_goes_on_after_an_image_that_cannot_be_read(coco, picture, capsys, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    paths = [str(tmp_path / "bad.jpg"), str(tmp_path / "missing.jpg"), str(picture())]
    assert main.main(["predict", *paths]) == 1
    shown = capsys.readouterr()
    first, second, third = map(json.loads, shown.out.splitlines())
    assert "error" in first and second["error"] == "No such file or directory"
    assert len(third["boxes"]) == 2
    assert "2 of 3 images could not be predicted" in shown.err


def test_predict_of_an_empty_folder_says_what_it_looks_for(coco, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main.main(["predict", str(tmp_path / "empty")]) == 1
    assert "found no image, expected files .jpg" in capsys.readouterr().err


def test_no_picture_is_saved_over_an_image_to_predict(coco, picture, capsys, tmp_path):
    kept = {path: path.read_bytes() for path in (picture("d/a.jpg"), picture("d/b.png"))}
    (tmp_path / "link").symlink_to(tmp_path / "d")
    assert main.main(["predict", str(tmp_path / "d"), "--save", str(tmp_path / "link")]) == 1
    shown = capsys.readouterr()
    assert "a.jpg" in shown.err and "name another folder" in shown.err and not shown.out
    assert {path: path.read_bytes() for path in (tmp_path / "d").iterdir()} == kept


def test_pictures_are_saved_with_their_boxes_and_none_over_another(coco, picture, capsys, tmp_path):
    paths = [str(picture("x/a.png")), str(picture("y/a.png"))]
    before = [tmp_path.joinpath(path).read_bytes() for path in paths]
    assert main.main(["predict", "--save", str(tmp_path / "out"), *paths]) == 0
    assert [row["saved"][-7:] for row in lines(capsys)] == ["t/a.jpg", "a-2.jpg"]
    saved = cv2.imread(str(tmp_path / "out" / "a.jpg"))
    assert saved.shape == (100, 200, 3)
    assert saved[40:44, 8:12].max() > 100  # the left edge of the first box
    assert [tmp_path.joinpath(path).read_bytes() for path in paths] == before


@given(st.lists(st.sampled_from(["a.jpg", "a.png", "a-2.jpg", "b.jpg"]), max_size=8))
def test_no_two_pictures_have_the_same_name(names):
    targets = predict._targets(Path("out"), [Path(name) for name in names])
    assert len(set(targets)) == len(targets) == len(names)


TURNED = OrientedBoxes(
    np.array([[50, 40, 20, 10, np.pi / 2]], np.float32), np.array([0.75], np.float32), np.array([1])
)
POSE = Keypoints(
    Boxes(np.array([[1, 2, 3, 4]], np.float32), np.array([0.75], np.float32), np.array([1])),
    np.array([[[1, 2], [3, 4]]], np.float32),
    np.array([[0.5, 1]], np.float32),
)
MASKS = Masks(POSE.boxes, [lambda: Mask(10, 20, np.ones((5, 6), bool))])


def says(monkeypatch, result):
    """Has the engine say ``result`` of every image."""
    load = loader.load_engine

    def loaded(*words):
        engine = load(*words)
        engine._result = lambda boxes: result
        return engine

    monkeypatch.setattr(loader, "load_engine", loaded)


BUS = {"label": "bus", "score": 0.75}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            MASKS,
            {
                **BUS,
                "box": [1, 2, 3, 4],
                "polygons": [[[10, 20], [10, 25], [16, 25], [16, 20]]],
            },
        ),
        (
            TURNED,
            {
                **BUS,
                "box": [45, 30, 55, 50],
                "corners": [[55, 30], [55, 50], [45, 50], [45, 30]],
                "angle": 90,
            },
        ),
        (POSE, {**BUS, "box": [1, 2, 3, 4], "keypoints": [[1, 2, 0.5], [3, 4, 1]]}),
    ],
)
def test_predict_prints_what_a_model_of_each_task_says_and_draws_it(
    coco, picture, capsys, monkeypatch, tmp_path, result, expected
):
    says(monkeypatch, result)
    assert main.main(["predict", "--save", str(tmp_path / "out"), str(picture())]) == 0
    (row,) = lines(capsys)
    assert row["boxes"] == [expected]
    assert cv2.imread(row["saved"]).max() > 100


def test_predict_prints_the_surest_classes_above_the_threshold(
    coco, picture, capsys, monkeypatch, tmp_path
):
    said = Classes(np.array([0.25, 0.75], np.float32))
    says(monkeypatch, said)
    words = ["predict", "--conf", "0.2", "--save", str(tmp_path / "out"), str(picture())]
    assert main.main(words) == 0
    (row,) = lines(capsys)
    assert row["classes"] == [
        {"label": "bus", "score": 0.75},
        {"label": "person", "score": 0.25},
    ]
    assert "boxes" not in row
    assert main.main(["predict", str(picture())]) == 0
    assert [one["label"] for one in lines(capsys)[0]["classes"]] == ["bus"]


# models


def test_models_are_those_of_the_backend_that_runs(backend, capsys):
    assert main.main(["models"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("from http://127.0.0.1:")
    assert [" ".join(row.split()) for row in rows] == [
        "model version state classes engine memory",
        "coco coco@1 ready person, hard_hat, bus and 1 more openvino 90 MB",
        "head head@1 unloaded - - -",
    ]


def test_check_and_models_say_of_weights_what_inspect_says(coco, models_dir, monkeypatch, capsys):
    monkeypatch.undo()
    lfs = models_dir / "lfs.pt"
    lfs.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    (models_dir / "models.yaml").write_text("lfs: {weights: lfs.pt}\n")
    monkeypatch.setenv("MODEL_ROOT", str(models_dir))
    monkeypatch.setenv("MODELS_CONFIG", str(models_dir / "models.yaml"))
    monkeypatch.setenv("BACKEND_URL", "http://127.0.0.1:9")
    assert main.main(["weights", "inspect", str(lfs)]) == 1
    text = capsys.readouterr().err.removeprefix("error: ")
    assert "found a Git LFS pointer" in text
    assert main.main(["check"]) == 78
    assert text in capsys.readouterr().err
    assert main.main(["models"]) == 1
    assert text in capsys.readouterr().err


def test_without_a_backend_models_are_those_of_models_yaml(coco, models_dir, capsys):
    assert main.main(["models", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == str(models_dir / "models.yaml")
    (row,) = found["models"]
    assert (row["name"], row["state"], row["classes"]) == ("coco", "not running", ["person", "bus"])
    assert row["version"].startswith("coco@")


def test_a_model_whose_weights_are_missing_is_told_and_ends_with_1(coco, models_dir, capsys):
    with (models_dir / "models.yaml").open("a") as file:
        file.write("head: {weights: head.pt}\n")
    assert main.main(["models"]) == 1
    shown = capsys.readouterr()
    assert "'head.pt' is not in" in shown.err and "coco@" in shown.out


def test_a_backend_that_does_not_take_the_password_is_told(backend, monkeypatch, capsys):
    monkeypatch.setenv("BASIC_AUTH_PASS", "other")
    assert main.main(["models"]) == 1
    assert "check BASIC_AUTH_USER and BASIC_AUTH_PASS" in capsys.readouterr().err


def test_a_models_yaml_that_cannot_be_used_ends_with_78(models_dir, capsys):
    (models_dir / "models.yaml").write_text("coco: 1\n")
    assert main.main(["models"]) == 78
    assert "models.yaml:1: coco" in capsys.readouterr().err


# labels


@pytest.fixture
def project(tmp_path):
    def make(config=LABELS, models="[coco]"):
        path = tmp_path / "demo.yaml"
        path.write_text(
            f"title: Demo\nmodels: {models}\nlabel_config: |\n"
            + "".join(f"  {line}\n" for line in config.splitlines())
        )
        return str(path)

    return make


def test_labels_are_shown_with_their_classes_and_what_does_not_map(backend, project, capsys):
    assert main.main(["labels", "--project", project()]) == 0
    assert capsys.readouterr().out == (
        "Demo\n"
        "  label (RectangleLabels), coco\n"
        "    person    <- person\n"
        "    Hard Hat  <- hard_hat\n"
        "    buss      !! no class is called 'buss'; did you mean 'bus'?\n"
        "    classes without a label, not drawn: bus, train\n"
    )


def test_labels_are_told_as_json(backend, project, capsys):
    assert main.main(["labels", "--json", "--project", project()]) == 0
    ((demo,), (control,)) = (
        (found := json.loads(capsys.readouterr().out)),
        found[0]["controls"],
    )
    assert demo["project"] == "Demo"
    assert control["mapped"] == {"person": ["person"], "Hard Hat": ["hard_hat"]}
    assert (list(control["unmapped"]), control["unlabelled"]) == (["buss"], ["bus", "train"])


def test_labels_need_no_backend_where_models_yaml_is(coco, project, capsys):
    assert main.main(["labels", "--project", project()]) == 0
    assert "person    <- person" in capsys.readouterr().out


def test_a_project_of_which_no_label_maps_ends_with_1(backend, project, capsys):
    assert main.main(["labels", "--project", project(LABELS.replace("person", "x").replace(
        "Hard Hat", "y"))]) == 1  # fmt: skip
    assert "Demo: no label maps to a class" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("[coc]", "no model is called 'coc'; did you mean 'coco'?"),
        ("[head]", "model 'head' has said no classes yet: it is unloaded"),
    ],
)
def test_a_model_of_which_nothing_is_known_is_told(backend, project, capsys, models, message):
    assert main.main(["labels", "--project", project(models=models)]) == 1
    assert message in capsys.readouterr().err


def test_a_project_file_that_is_missing_ends_with_78(capsys, tmp_path):
    assert main.main(["labels", "--project", str(tmp_path / "none.yaml")]) == 78


def test_a_label_studio_that_does_not_answer_is_told(monkeypatch, capsys):
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "legacy")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the SDK's retries
    assert main.main(["labels", "--project", "7"]) == 1
    assert "project 7: unavailable from http://127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "names"),
    [
        ({"url": "http://backend:9090/m/a+b"}, ("a", "b")),
        ({"url": "http://backend:9090", "extra_params": {"0": "a"}}, ("a",)),
        ({"url": "http://backend:9090", "extra_params": None}, ()),
    ],
)
def test_a_project_of_label_studio_has_the_models_of_its_first_connection(monkeypatch, row, names):
    class Fake:
        def __init__(self, url, key):
            project = SimpleNamespace(title="Demo", label_config=LABELS, task_number=4)
            user = SimpleNamespace(email="a@b.c")
            self.client = SimpleNamespace(
                projects=SimpleNamespace(get=lambda number: project),
                users=SimpleNamespace(whoami=lambda: user),
            )

        def connections(self, number):
            return [{"id": 9, "url": "http://x/m/other"}, {"id": 3, **row}]

    monkeypatch.setattr("ls_yolo.labelstudio.client.Studio", Fake)
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "legacy")
    found = labels.project_of_studio(7)
    assert (found.title, found.config, found.models, found.tasks) == ("Demo", LABELS, names, 4)


POINTS = """<View><Image name="image" value="$image"/>
<KeyPointLabels name="points" toName="image">
<Label value="nose" predicted_values="person" model_index="0"/></KeyPointLabels></View>"""
TREE = """<View><Image name="image" value="$image"/>
<Taxonomy name="tree" toName="image"><Choice value="Things"><Choice value="Bus"/></Choice>
</Taxonomy></View>"""


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (TREE, "    Things / Bus  <- bus\n"),
        (TREE, "    Things        !! no class is called 'Things'"),
        (TREE.replace("Taxonomy", "Choices"), "no class is called 'Things'"),
        (POINTS, "    nose         <- person, point 0\n"),
        (POINTS, "    points_bbox  !! boxes are left out: found no RectangleLabels called"),
    ],
)
def test_labels_of_each_control_are_shown_as_it_matches_them(
    backend, project, capsys, config, line
):
    main.main(["labels", "--project", project(config)])
    assert line in capsys.readouterr().out


def test_a_control_that_the_models_cannot_be_drawn_by_is_told(coco, project, capsys):
    text = LABELS.replace("RectangleLabels", "PolygonLabels")
    assert main.main(["labels", "--project", project(text)]) == 1
    assert "found the models coco (detect), expected one for segment" in capsys.readouterr().out


def test_each_control_chooses_among_all_models_of_the_project():
    rows = [
        {"name": "boxes", "task": "detect", "classes": ["cat"]},
        {"name": "outlines", "task": "segment", "classes": ["cat"]},
    ]
    text = (
        '<View><Image name="image" value="$image"/>'
        '<PolygonLabels name="p" toName="image"><Label value="cat"/></PolygonLabels>'
        '<RectangleLabels name="r" toName="image"><Label value="cat"/></RectangleLabels></View>'
    )
    found = mapping(text, ("boxes", "outlines"), rows)
    assert [item.models for item in found] == [("outlines",), ("boxes", "outlines")]


def test_labels_map_to_the_model_that_the_backend_calls_its_default():
    rows = [
        {"name": "one", "task": "detect", "classes": ["cat"], "default": False},
        {"name": "other", "task": "detect", "classes": ["cat"], "default": True},
    ]
    text = (
        '<View><Image name="i" value="$i"/>'
        '<RectangleLabels name="r" toName="i"><Label value="cat"/></RectangleLabels></View>'
    )
    assert [item.models for item in mapping(text, (), rows)] == [("other",)]
    assert [item.models for item in mapping(text, (), rows, "one")] == [("one",)]


SAM_ROW = {"name": "smart", "task": "sam", "classes": []}


def test_a_sam_has_no_labels_to_map_and_nothing_to_warn_of():
    rows = [SAM_ROW, {"name": "boxes", "task": "detect", "classes": ["cat"]}]
    outlines = '<PolygonLabels name="p" toName="image"><Label value="cat"/></PolygonLabels>'
    boxes = '<RectangleLabels name="r" toName="image"><Label value="cat"/></RectangleLabels>'
    text = f'<View><Image name="image" value="$image"/>{outlines}{boxes}</View>'
    # The first that predicts is the default; what only the SAM draws in is left out.
    for names in ((), ("boxes",), ("smart", "boxes")):
        found = {item.control: item.models for item in mapping(text, names, rows)}
        assert found.pop("r") == ("boxes",)
        assert bool(found) == ("smart" not in names)
    assert mapping(text, ("smart",), rows) == []
    (only,) = mapping(text.replace(boxes, ""), ("smart", "boxes"), rows)
    assert only.unmapped["cat"].endswith(
        "found the models boxes (detect), expected one for segment or semantic"
    )


def test_labels_of_a_project_with_a_sam_alone_are_no_error(backend, project, capsys, monkeypatch):
    monkeypatch.setitem(ROWS[1], "name", "smart")
    monkeypatch.setitem(ROWS[1], "task", "sam")
    assert main.main(["labels", "--project", project(models="[smart]")]) == 0
    assert "a SAM alone: it draws under any label" in capsys.readouterr().out


def test_predict_with_a_sam_is_refused(coco, models_dir, write_weights, picture, capsys):
    write_weights("sam_b.pt", {})
    with (models_dir / "models.yaml").open("a") as file:
        file.write("smart: {weights: sam_b.pt, task: sam}\n")
    assert main.main(["predict", "--model", "smart", str(picture())]) == 1
    assert "'smart' is a SAM, which answers what is drawn" in capsys.readouterr().err
