"""Tasks in, predictions out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_studio_sdk.label_interface import LabelInterface

from ls_yolo.images.limits import MediaError
from ls_yolo.labelstudio.client import StudioError
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.predictor import (
    FROM_WEB,
    FROM_WEB_EACH,
    ClientGone,
    PredictionError,
    Predictor,
)
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import UnknownModel

PERSON = [20, 10, 120, 60, 0.9, 0]
CAR = [0, 0, 100, 50, 0.3, 1]
BOXES = {"boxes": [PERSON, CAR]}


def config(*controls, image='<Image name="image" value="$image"/>'):
    return f"<View>{image}{''.join(controls)}</View>"


def control(*found, name="label", to="image", attributes="", tag="RectangleLabels"):
    inner = "".join(f'<Label value="{label}"/>' for label in found)
    return f'<{tag} name="{name}" toName="{to}" {attributes}>{inner}</{tag}>'


BOTH = config(control("person", "car"))


class Uploads:
    """Label Studio's uploads: every fetch raises ``error``."""

    def __init__(self, error):
        self.error = error

    def fetch(self, path, limit):
        raise self.error


@pytest.fixture
def make(make_registry, write_weights, datasets):
    """A predictor with the model ``a``, which finds a person (0.9) and a car (0.3), and ``b``."""

    def make(
        text="a: {weights: a.pt}\nb: {weights: b.pt}",
        studio=None,
        web=None,
        reduced=False,
        plotter=None,
        **options,
    ):
        write_weights("a.pt", {0: "person", 1: "car"}, **BOXES, **options.pop("weights", {}))
        write_weights("b.pt", {0: "head"}, boxes=[[0, 0, 50, 50, 0.8, 0]])
        models = make_registry(text, **options)
        reader = ImageReader(datasets, studio, "http://ls:8080", web=web, reduced=reduced)
        return Predictor(models, reader, plotter)

    return make


@pytest.fixture
def predictor(make):
    return make()


def predict(predictor, tasks, text=BOTH, url=(), extra=()):
    return predictor.predict(tasks, predictor.plan(text, url, extra))


def found(prediction):
    return [region["value"]["rectanglelabels"][0] for region in prediction["result"]]


def inferences(calls):
    return [call for call in calls if "conf" in call]


# Plans: which models draw for which controls


def test_the_models_are_the_controls_own_else_the_urls_else_extra_params_else_the_default(
    predictor,
):
    def names(text, url=(), extra=()):
        return [d.model.entry.name for d in predictor.plan(text, url, extra).bindings]

    free, own = (
        config(control("person", "head")),
        config(control("person", "head", attributes='model_path="b"')),
    )
    assert names(free) == ["a"]
    assert names(free, extra=["b"]) == ["b"]
    assert names(free, url=["a", "b"], extra=["b"]) == ["a", "b"]
    assert names(own, url=["a"], extra=["a"]) == ["b"]


def test_the_version_names_every_model_that_answers(predictor):
    a, b = (predictor.registry.get(name).version for name in "ab")
    text = config(control("person", "head"))
    assert predictor.plan(text, [], []).version == a
    assert predictor.plan(text, ["b", "a"], []).version == f"{a}+{b}"
    assert predictor.plan(text, [], ["a", "b"]).version == f"{a}+{b}"


def test_an_unknown_model_is_refused_wherever_it_is_named(predictor):
    for arguments in (
        (BOTH, ["c"], []),
        (BOTH, [], ["c"]),
        (config(control("person", attributes='model_path="c"')), [], []),
    ):
        with pytest.raises(UnknownModel, match=r"'c'.*models\.yaml has: a, b"):
            predictor.plan(*arguments)


def test_a_weights_file_may_be_named_by_a_control_only(make, write_weights):
    predictor = make(custom=True)
    write_weights("own.pt", {0: "dog"})
    own = config(control("dog", attributes='model_path="own.pt"'))
    assert predictor.plan(own, [], []).version.startswith("own.pt@")
    for url, extra in ((["own.pt"], []), ([], ["own.pt"])):
        with pytest.raises(UnknownModel):
            predictor.plan(config(control("dog")), url, extra)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<View></View>", "none"),
        (config(), "none"),
        (config(control(tag="TextArea")), "TextArea on Image"),
        (
            config(control(tag="TextArea"), control(tag="Number", name="b")),
            "Number on Image, TextArea on Image",
        ),
        (config(control("A", tag="Choices", attributes='perRegion="true"')), "Choices on Image"),
        (config(control(tag="Rectangle")), "Rectangle on Image"),
        (config(control("person", attributes='model_skip="true"')), "RectangleLabels on Image"),
        (
            config(control("person"), image='<Text name="image" value="$image"/>'),
            "RectangleLabels on Text",
        ),
        (config(control()), "none, expected at least one"),
    ],
)
def test_with_nothing_to_draw_yet_the_plan_says_what_it_waits_for_and_nothing_is_stored(
    predictor, text, found
):
    plan = predictor.plan(text, [], [])
    assert f"found {found}" in plan.waiting
    assert plan.version == f"waiting for something to draw: {plan.waiting}"
    with pytest.raises(LabelConfigError, match="nothing to draw yet: "):
        predictor.predict([{"data": {"image": "/data/local-files/?d=none.jpg"}}], plan)


def test_an_unknown_model_is_refused_with_nothing_to_draw_too(predictor):
    with pytest.raises(UnknownModel, match="'c'"):
        predictor.plan("<View></View>", ["c"], [])


def test_where_no_label_maps_the_error_names_both_sides(predictor):
    with pytest.raises(LabelConfigError) as caught:
        predictor.plan(config(control("dog", "cat")), [], [])
    assert str(caught.value).startswith(
        "no label maps to a class: the labels are cat, dog; the classes are car, person."
    )


def test_a_label_that_no_class_stands_for_is_told_and_the_others_work(predictor, write_image):
    text = config(control("Person", "lorry"))
    assert predictor.plan(text, [], []).unmapped == {
        "label": {"lorry": "no class is called 'lorry'"}
    }
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}], text)
    assert found(answer) == ["Person"]


# Predictions


def test_a_prediction_has_regions_mean_score_and_version(make, write_image):
    predictor = make(conf=0.2)
    (answer,) = predict(predictor, [{"id": 1, "data": {"image": write_image()}}])
    assert found(answer) == ["person", "car"]
    assert answer["score"] == pytest.approx(0.6)
    assert answer["model_version"] == predictor.registry.get("a").version
    assert answer["result"][0]["value"]["x"] == 10
    assert answer["result"][0]["original_width"] == 200


def test_a_score_is_made_as_the_setting_says(make, write_image):
    predictor = make(conf=0.2)
    predictor._score = "least_confidence-max"
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}])
    assert answer["score"] == pytest.approx(min(r["score"] for r in answer["result"]))
    assert answer["score"] < 0.6


def test_an_image_in_which_nothing_is_found_has_an_empty_prediction(make, write_image):
    (answer,) = predict(make(conf=0.95), [{"data": {"image": write_image()}}])
    assert (answer["result"], answer["score"]) == ([], 1.0)


def test_no_task_has_no_answer(predictor):
    assert predict(predictor, []) == []


@pytest.mark.parametrize(
    ("entry", "attributes", "wanted"),
    [
        ("", "", 0.5),  # MODEL_SCORE_THRESHOLD
        ("conf: 0.4", "", 0.4),
        ("conf: 0.4", 'model_score_threshold="0.2"', 0.2),
        ("conf: 0.4", 'model_score_threshold=""', 0.4),
        ("conf: 0.4", 'model_score_threshold="0"', 0.0),
        ("conf: 0", "", 0.0),
    ],
)
def test_the_threshold_is_the_controls_else_the_models_else_the_setting_and_reaches_the_engine(
    make, write_image, engine_calls, entry, attributes, wanted
):
    predictor = make(f"a: {{weights: a.pt, {entry}}}\nb: {{weights: b.pt}}")
    text = config(control("person", "car", attributes=attributes))
    predict(predictor, [{"data": {"image": write_image()}}], text)
    (call,) = inferences(engine_calls)
    assert call["conf"] == wanted


def test_a_threshold_that_is_no_score_refuses_the_configuration(predictor):
    with pytest.raises(LabelConfigError, match="model_score_threshold of 'label'"):
        predictor.plan(config(control("car", attributes='model_score_threshold="x"')), [], [])


def test_iou_and_image_size_reach_the_engine(make, write_image, engine_calls):
    predictor = make("a: {weights: a.pt, iou: 0.4, imgsz: 320}\nb: {weights: b.pt}")
    predict(predictor, [{"data": {"image": write_image()}}])
    (call,) = inferences(engine_calls)
    assert (call["iou"], call["imgsz"]) == (0.4, {320})


def test_controls_with_thresholds_of_their_own_share_one_run_at_the_lowest(
    predictor, write_image, engine_calls
):
    text = config(
        control("person", name="sure", attributes='model_score_threshold="0.95"'),
        control("person", "car", name="any", attributes='model_score_threshold="0.2"'),
        control("person", "car", name="plain"),
    )
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}], text)
    assert [call["conf"] for call in inferences(engine_calls)] == [0.2]
    assert [(r["from_name"], r["value"]["rectanglelabels"][0]) for r in answer["result"]] == [
        ("any", "person"),
        ("any", "car"),
        ("plain", "person"),
    ]


def test_several_models_draw_for_one_control(predictor, write_image, engine_calls):
    text = config(control("person", "head"))
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}], text, extra=["a", "b"])
    assert found(answer) == ["person", "head"]
    assert sorted(call["weights"] for call in inferences(engine_calls)) == ["a.pt", "b.pt"]


def test_several_images_of_a_task_have_each_their_own_regions(predictor, write_image):
    images = '<Image name="l" value="$left"/><Image name="r" value="$right"/>'
    text = config(
        control("person", name="x", to="l"), control("person", name="y", to="r"), image=images
    )
    task = {"data": {"left": write_image("l.jpg", 200), "right": write_image("r.jpg", 400)}}
    (answer,) = predict(predictor, [task], text)
    assert [(r["to_name"], r["original_width"]) for r in answer["result"]] == [
        ("l", 200),
        ("r", 400),
    ]


def test_an_image_under_several_controls_is_read_once(predictor, write_image, monkeypatch):
    from ls_yolo.images import source

    read, reads = source.read, []
    monkeypatch.setattr(source, "read", lambda url, *rest: reads.append(url) or read(url, *rest))
    text = config(control("person", name="x"), control("car", name="y"))
    predict(predictor, [{"data": {"image": write_image()}}], text, url=["a", "b"])
    assert len(reads) == 1


def test_the_images_of_a_list_have_their_regions_by_item_index(predictor, write_image):
    text = config(control("person"), image='<Image name="image" valueList="$pages"/>')
    pages = [write_image("a.jpg", 200), write_image("b.jpg", 400)]
    (answer,) = predict(predictor, [{"data": {"pages": pages}}], text)
    assert [(r["item_index"], r["original_width"]) for r in answer["result"]] == [
        (0, 200),
        (1, 400),
    ]


def test_a_task_with_more_images_than_the_first_is_predicted_whole(make, write_image):
    text = config(control("person"), image='<Image name="image" valueList="$pages"/>')
    pages = [write_image(f"{number}.jpg", 200 + number) for number in range(20)]
    tasks = [{"data": {"pages": pages[:1]}}, {"data": {"pages": pages}}, {"data": {"pages": pages}}]
    answers = predict(make(), tasks, text)
    assert [len(answer["result"]) for answer in answers] == [1, 20, 20]


def test_a_task_with_more_images_than_a_queue_takes_is_told_so(make, write_image):
    predictor = make()
    size = predictor.registry.get("a").batcher.queue_size
    text = config(control("person"), image='<Image name="image" valueList="$pages"/>')
    pages = [f"{write_image()}?{number}" for number in range(size + 1)]
    (answer,) = predict(predictor, [{"data": {"pages": pages}}], text)
    assert answer["error"].startswith(f"found {size + 1} images, expected at most {size}")


def test_a_repeater_has_regions_under_its_numbered_names(predictor, write_image):
    text = """<View><Repeater on="$pages"><Image name="page_{{idx}}" value="$pages[{{idx}}]"/>
    <RectangleLabels name="label_{{idx}}" toName="page_{{idx}}"><Label value="person"/>
    </RectangleLabels></Repeater></View>"""
    pages = [write_image("a.jpg", 200), write_image("b.jpg", 400)]
    (answer,) = predict(predictor, [{"data": {"pages": pages}}], text)
    assert [(r["from_name"], r["to_name"], r["original_width"]) for r in answer["result"]] == [
        ("label_0", "page_0", 200),
        ("label_1", "page_1", 400),
    ]


def test_each_task_has_the_labels_that_it_brings(make, write_image):
    text = config(control(attributes='value="$objects"'))
    url = write_image()
    tasks = [
        {"data": {"image": url, "objects": [{"value": label} for label in labels]}}
        for labels in (["Person"], ["car"], ["dog"])
    ]
    answers = predict(make(conf=0.2), tasks, text)
    assert [found(answer) for answer in answers] == [["Person"], ["car"], []]


# Faults


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": {}},
        {"data": {"image": None}},
        {"data": {"image": ""}},
        {"data": {"image": 5}},
        {"data": {"image": []}},
        {"data": {"image": "/data/local-files/?d=none.jpg"}},
        {"data": {"image": "/data/local-files/?d=text.jpg"}},
        {"data": {"image": "/data/local-files/?d=../secret"}},
        {"data": {"image": "https://example.com/a.jpg?token=hunter2"}},
        {"data": {"image": "/data/upload/1/a.jpg"}},
    ],
)
def test_a_bad_task_gets_an_empty_prediction_and_a_logged_reason_and_spoils_no_other(
    predictor, write_image, datasets, caplog, task
):
    (datasets / "text.jpg").write_text("no image")
    good = {"id": 1, "data": {"image": write_image()}}
    answers = predict(predictor, [good, {"id": 77, **task}, good])
    assert [found(answer) for answer in answers] == [["person"], [], ["person"]]
    assert len({answer["model_version"] for answer in answers}) == 1
    (record,) = [record for record in caplog.records if record.name == "ls_yolo.serving.predictor"]
    assert record.getMessage().startswith("task 77: empty prediction: ")
    assert "hunter2" not in caplog.text


def test_bad_tasks_alone_are_no_fault_of_the_backend(predictor):
    answers = predict(predictor, [{"data": {"image": "/data/local-files/?d=none.jpg"}}] * 2)
    assert [answer["result"] for answer in answers] == [[], []]


def test_an_engine_that_fails_for_one_task_spoils_no_other(make, write_image):
    predictor = make(weights={"fails": [33]})
    tasks = [
        {"data": {"image": write_image("good.jpg")}},
        {"data": {"image": write_image("bad.jpg", width=33)}},
    ]
    assert [found(answer) for answer in predict(predictor, tasks)] == [["person"], []]


def test_an_engine_that_fails_for_every_task_is_an_error_so_that_nothing_is_stored(
    make, write_image
):
    predictor = make(weights={"fails": ["all"]})
    with pytest.raises(PredictionError, match="the engine failed: RuntimeError"):
        predict(predictor, [{"data": {"image": write_image()}}] * 3)


def test_label_studio_out_of_reach_is_an_error_so_that_nothing_is_stored(make):
    predictor = make(studio=Uploads(StudioError("answered 401; check LABEL_STUDIO_API_KEY")))
    with pytest.raises(PredictionError, match="answered 401; check LABEL_STUDIO_API_KEY"):
        predict(predictor, [{"data": {"image": "/data/upload/1/a.jpg"}}])


def test_a_missing_upload_is_the_fault_of_its_task(make):
    predictor = make(studio=Uploads(MediaError("Label Studio does not have it")))
    (answer,) = predict(predictor, [{"data": {"image": "/data/upload/1/a.jpg"}}])
    assert answer["result"] == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.sampled_from(["good", "missing", "broken", "none"]), max_size=12))
def test_every_task_has_its_own_answer_in_its_own_place(make_once, kinds):
    predictor, urls = make_once
    tasks = [{"id": i, "data": {"image": urls[kind]}} for i, kind in enumerate(kinds)]
    if kinds and set(kinds) == {"broken"}:
        with pytest.raises(PredictionError):
            predict(predictor, tasks)
        return
    answers = predict(predictor, tasks)
    assert [bool(answer["result"]) for answer in answers] == [kind == "good" for kind in kinds]


@pytest.fixture
def make_once(make, write_image):
    urls = {
        "good": write_image("good.jpg"),
        "broken": write_image("bad.jpg", width=33),
        "missing": "/data/local-files/?d=missing.jpg",
        "none": None,
    }
    return make(weights={"fails": [33]}), urls


# Media


def decoded(calls):
    return [size for call in inferences(calls) for size in call["decoded"]]


def test_a_large_jpeg_is_decoded_near_what_the_model_needs_and_told_in_its_full_size(
    make, write_image, engine_calls
):
    url = write_image("demo/large.jpg", 4000, 3000)
    (small,) = predict(make(reduced=True), [{"id": 1, "data": {"image": url}}])
    (whole,) = predict(make(), [{"id": 1, "data": {"image": url}}])
    assert decoded(engine_calls) == [(2000, 1500), (4000, 3000)]
    assert small["result"] == whole["result"]
    assert small["result"][0]["original_width"] == 4000
    assert small["result"][0]["original_height"] == 3000


def test_the_model_that_needs_most_says_how_large_an_image_is_decoded(
    make, write_image, engine_calls
):
    url = write_image("demo/large.jpg", 4000, 3000)
    text = "a: {weights: a.pt, imgsz: 320}\nb: {weights: b.pt, imgsz: 64}"
    model = make(text, reduced=True)
    (answer,) = predict(model, [{"id": 1, "data": {"image": url}}], extra=["a", "b"])
    assert decoded(engine_calls) == [(1000, 750)] * 2
    assert "error" not in answer


class Asked:
    """Answers every question with an image, and remembers it."""

    def __init__(self):
        self.asked = []
        _, data = cv2.imencode(".png", np.zeros((100, 200, 3), np.uint8))
        self.image = data.tobytes()

    def fetch(self, path, limit, query=""):
        self.asked.append((path, query))
        return self.image


def test_a_file_of_a_storage_is_asked_for_with_the_tasks_id(make):
    studio = Asked()
    (answer,) = predict(make(studio=studio), [{"id": 12, "data": {"image": "s3://bucket/a.jpg"}}])
    assert found(answer)
    assert studio.asked == [("/tasks/12/resolve/", "fileuri=czM6Ly9idWNrZXQvYS5qcGc%3D")]


def test_an_address_of_the_web_is_read_where_that_is_allowed(make):
    web = Asked()
    task = {"id": 1, "data": {"image": "https://example.com/a.jpg"}}
    (answer,) = predict(make(web=web), [task])
    assert found(answer)
    assert web.asked == [("https://example.com/a.jpg", "")]
    (answer,) = predict(make(), [task])
    assert "not a URL that the backend reads" in answer["error"]


# Several controls, several tasks of models

SEGMENT = {"task": "segment", **BOXES}
CLASSIFY = {"task": "classify", "scores": [0.4, 0.3]}
OTHERS = "a: {weights: a.pt}\ns: {weights: s.pt}\nc: {weights: c.pt}"


@pytest.fixture
def others(make, write_weights):
    """The models a (detect), s (segment) and c (classify)."""
    write_weights("s.pt", {0: "person", 1: "car"}, **SEGMENT)
    write_weights("c.pt", {0: "person", 1: "car"}, **CLASSIFY)
    return make(OTHERS, conf=0.2)


def types(prediction):
    return [region["type"] for region in prediction["result"]]


def test_each_control_takes_the_models_whose_task_it_can_draw(others):
    text = config(control("person", name="r"), control("person", name="p", tag="PolygonLabels"))
    plan = others.plan(text, ["a", "s", "c"], [])
    assert [(binding.control.from_name, binding.model.task) for binding in plan.bindings] == [
        ("r", "detect"),
        ("r", "segment"),
        ("p", "segment"),
    ]


def test_a_control_that_no_model_fits_is_told_and_the_others_work(others):
    text = config(control("person", name="r"), control("person", name="p", tag="PolygonLabels"))
    plan = others.plan(text, ["a"], [])
    assert plan.unmapped == {}
    assert plan.warnings == (
        "PolygonLabels 'p': found the models a (detect), expected one for segment or semantic; "
        "the control is left to people",
    )


def test_boxes_of_bodies_that_no_control_takes_are_told_once(make, write_weights):
    write_weights("p.pt", {0: "person"}, task="pose")
    points = '<Label value="nose" predicted_values="person" model_index="0"/>'
    text = config(f'<KeyPointLabels name="k" toName="image">{points}</KeyPointLabels>')
    (said,) = make("p: {weights: p.pt}").plan(text, [], []).warnings
    assert said.startswith("KeyPointLabels 'k': boxes are left out: found no RectangleLabels")


REPEATED = (
    '<View><Repeater on="$images"><Image name="i{{idx}}" value="$images[{{idx}}]"/>'
    '<RectangleLabels name="r{{idx}}" toName="i{{idx}}"><Label value="person"/></RectangleLabels>'
    "</Repeater></View>"
)
OWN = config('<RectangleLabels name="r{{idx}}" toName="image" value="$objects"/>')
NESTED = config(
    '<Choices name="r{{idx}}" toName="image" allowNested="true"><Choice value="any">'
    '<Choice value="person"/></Choice></Choices>'
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (REPEATED, "it is in a Repeater"),
        (OWN, "it has labels that each task brings"),
        (NESTED, "choices inside choices"),
    ],
)
def test_what_label_studio_refuses_where_it_checks_strictly_is_named(predictor, text, what):
    plan = predictor.plan(text, [], [])
    (said,) = plan.warnings
    assert f"'r{{{{idx}}}}': {what}" in said
    assert "fflag_feat_utc_210_prediction_validation_15082025" in said
    assert plan.bindings


def test_what_label_studio_takes_is_not_warned_of(predictor):
    assert predictor.plan(config(control("person")), [], []).warnings == ()


def test_where_no_model_fits_any_control_the_error_names_both_sides(others):
    with pytest.raises(
        LabelConfigError, match=r"found the models c \(classify\), expected one for "
    ):
        others.plan(config(control("person", tag="PolygonLabels")), ["c"], [])


def test_of_one_inference_every_control_has_its_own_and_each_mask_is_made_once(
    others, write_image, engine_calls
):
    text = config(
        control("person", "car", name="r"),
        control("person", "car", name="p", tag="PolygonLabels"),
        control("person", name="b", tag="BrushLabels"),
        control("person", "car", name="c", tag="Choices").replace("Label ", "Choice "),
        '<Number name="n" toName="image" model_count="person,car"/>',
    )
    (answer,) = predict(others, [{"data": {"image": write_image()}}], text, ["s"])
    assert len(inferences(engine_calls)) == 1
    assert types(answer) == [
        *["rectanglelabels"] * 2,
        *["polygonlabels"] * 2,
        "brushlabels",
        "choices",
        "number",
    ]
    made = [call["mask"] for call in engine_calls if "mask" in call]
    assert sorted(made) == [(0, 0), (20, 10)]
    assert LabelInterface(text).validate_prediction(answer, return_errors=True) == []


def test_a_control_s_threshold_holds_for_what_is_said_of_an_image_as_a_whole(others, write_image):
    def found(attributes):
        text = config(control("person", "car", tag="Choices", attributes=attributes))
        text = text.replace("Label ", "Choice ")
        (answer,) = predict(others, [{"data": {"image": write_image()}}], text, ["c"])
        return [region["value"]["choices"] for region in answer["result"]]

    assert found("") == [["person"]]
    assert found('choice="multiple"') == [["person", "car"]]
    assert found('choice="multiple" model_score_threshold="0.35"') == [["person"]]
    assert found('model_score_threshold="0.5"') == []


def test_several_models_give_one_choice_and_one_sum(others, write_image):
    text = config(
        control("person", "car", name="c", tag="Choices").replace("Label ", "Choice "),
        '<Number name="n" toName="image" model_count="person,car"/>',
    )
    (answer,) = predict(others, [{"data": {"image": write_image()}}], text, ["a", "s", "c"])
    values = [region["value"] for region in answer["result"]]
    assert values == [{"choices": ["person"]}, {"number": 4}]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [("", [(None, 4)]), ('perItem="true"', [(0, 2), (1, 2)])],
)
def test_of_several_images_a_task_has_one_answer_unless_the_tag_asks_for_each(
    others, write_image, attributes, expected
):
    image = '<Image name="image" valueList="$pages"/>'
    text = config(
        f'<Number name="n" toName="image" model_count="person,car" {attributes}/>', image=image
    )
    pages = [write_image("a.jpg"), write_image("b.jpg")]
    (answer,) = predict(others, [{"data": {"pages": pages}}], text, ["a"])
    found = [(region.get("item_index"), region["value"]["number"]) for region in answer["result"]]
    assert found == expected


def test_nothing_to_count_is_an_answer_and_scored_as_an_empty_image(others, write_image):
    text = config('<Number name="n" toName="image" model_count="person"/>')
    text = text.replace("/></View>", ' model_score_threshold="0.95"/></View>')
    (answer,) = predict(others, [{"data": {"image": write_image()}}], text, ["a"])
    assert [region["value"] for region in answer["result"]] == [{"number": 0}]
    assert answer["score"] == 1


# Many tasks, and clients that go


def test_of_a_large_request_only_two_batches_are_queued_at_a_time(make, write_image, monkeypatch):
    predictor, held, most = make(), [], []
    batcher = predictor.registry.get("a").batcher
    submit = batcher.submit

    def count(*arguments, **more):
        future = submit(*arguments, **more)
        held.append(future)
        most.append(sum(not future.done() for future in held))
        return future

    monkeypatch.setattr(batcher, "submit", count)
    answers = predict(predictor, [{"data": {"image": write_image()}}] * 250)
    assert [found(answer) for answer in answers] == [["person"]] * 250
    assert 1 <= max(most) <= 2 * batcher.batch_size


def test_a_client_that_is_gone_is_worked_for_no_longer(predictor, write_image, engine_calls):
    looks = iter([False] * 6)
    plan = predictor.plan(BOTH, (), ())
    tasks = [{"data": {"image": write_image()}}] * 250
    with pytest.raises(ClientGone):
        predictor.predict(tasks, plan, lambda: next(looks, True))
    assert sum(call["count"] for call in inferences(engine_calls)) < 100


def test_where_too_much_waits_nothing_is_begun(predictor, write_image, engine_calls):
    batcher = predictor.registry.get("a").batcher
    with batcher.reserve(batcher.queue_size), pytest.raises(QueueFull, match="try again"):
        predict(predictor, [{"data": {"image": write_image()}}])
    assert inferences(engine_calls) == []
    assert found(predict(predictor, [{"data": {"image": write_image()}}])[0]) == ["person"]


def test_a_model_that_was_replaced_since_the_plan_is_said_to_be(predictor, write_image):
    plan = predictor.plan(BOTH, (), ())
    predictor.registry.get("a").batcher.release()
    with pytest.raises(Released):
        predictor.predict([{"data": {"image": write_image()}}], plan)


class Stuck:
    """An address that does not answer until it is let go."""

    def __init__(self):
        self.asked, self.free = threading.Semaphore(0), threading.Event()

    def fetch(self, url, limit):
        self.asked.release()
        self.free.wait(30)
        raise MediaError(url, "too_slow")


def test_images_at_hand_do_not_wait_for_those_of_a_slow_network(make, write_image):
    web = Stuck()
    predictor = make(web=web)
    far = [{"id": n, "data": {"image": "http://slow/a.jpg"}} for n in range(8)]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(predict, predictor, far)
        try:
            for _ in range(6):  # more than are decoded at a time
                assert web.asked.acquire(timeout=30)
            near = predict(predictor, [{"data": {"image": write_image()}}])
            assert not slow.done()
        finally:
            web.free.set()
    assert found(near[0]) == ["person"]
    assert [answer["error"] for answer in slow.result()] == ["http://slow/a.jpg"] * 8


class OneUpload:
    """A Label Studio that has an image under every path."""

    def __init__(self, content):
        self.content = content

    def fetch(self, path, limit, query=""):
        return self.content


def test_uploads_do_not_wait_for_a_slow_web_however_many_ask_it(make, datasets, write_image):
    write_image("a.jpg")
    web = Stuck()
    predictor = make(web=web, studio=OneUpload((datasets / "a.jpg").read_bytes()))
    urls = ["http://slow/data/local-files/a.jpg", "http://slow/tasks/1/resolve/", "http://slow/a"]
    far = [{"data": {"image": urls[n % 3]}} for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(predict, predictor, far) for _ in range(8)]
        try:
            for _ in range(FROM_WEB):
                assert web.asked.acquire(timeout=30)
            for url in ("/data/upload/1/a.jpg", "http://ls:8080/data/upload/1/a.jpg", "s3://b/a"):
                (answer,) = predict(predictor, [{"id": 1, "data": {"image": url}}])
                assert found(answer) == ["person"]
            assert not any(job.done() for job in slow)
        finally:
            web.free.set()
        assert all(len(job.result()) == 16 for job in slow)


def test_a_request_asks_a_slow_web_for_a_few_images_at_a_time(make):
    web = Stuck()
    predictor = make(web=web)
    far = [{"data": {"image": f"http://slow/{n}.jpg"}} for n in range(20)]
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(predict, predictor, far)
        try:
            for _ in range(FROM_WEB_EACH):
                assert web.asked.acquire(timeout=30)
            assert not web.asked.acquire(timeout=0.3)
        finally:
            web.free.set()
        assert [answer["error"] for answer in slow.result()] == [
            task["data"]["image"] for task in far
        ]


# Pictures of what was predicted


class Pictures:
    """Keeps what it is to save."""

    def __init__(self):
        self.saved = []

    def save(self, task, image, regions):
        names = [region["value"]["rectanglelabels"][0] for region in regions]
        self.saved.append((task, image.shape[1::-1], names))


def test_each_prediction_is_handed_on_as_a_picture_with_its_own_boxes(make, write_image):
    pictures = Pictures()
    tasks = [
        {"id": 7, "data": {"image": write_image("a.png", 200, 100)}},
        {"id": 8, "data": {"image": "/data/local-files/?d=demo/missing.png"}},
        {"id": 9, "data": {"image": write_image("b.png", 50, 60)}},
    ]
    predict(make(plotter=pictures), tasks)
    assert [(task, size) for task, size, _ in pictures.saved] == [(7, (200, 100)), (9, (50, 60))]
    assert "person" in pictures.saved[0][2]


# Slices, and several models that are one


SLICED = config(control("person", attributes='model_slice="400"'))


def test_a_large_image_is_predicted_as_a_whole_and_in_slices(make, write_image, engine_calls):
    predictor = make(reduced=True)
    url = write_image("large.jpg", 700, 500)
    engine_calls.clear()
    (answer,) = predict(predictor, [{"data": {"image": url}}], SLICED)
    seen = sorted(size for call in inferences(engine_calls) for size in call["decoded"])
    assert seen == [(400, 400)] * 4 + [(700, 500)]
    # The same box in each of them, where the slice begins; those that overlap are one.
    places = [(r["value"]["x"] * 7, r["value"]["y"] * 5) for r in answer["result"]]
    assert (20.0, 10.0) in [pytest.approx(place) for place in places]
    assert [r["score"] for r in answer["result"]] == pytest.approx([0.9] * 4)


def test_an_image_that_is_no_larger_than_a_slice_is_not_cut(make, write_image, engine_calls):
    predictor = make()
    engine_calls.clear()
    predict(predictor, [{"data": {"image": write_image("small.jpg", 400, 300)}}], SLICED)
    assert [call["decoded"] for call in inferences(engine_calls)] == [[(400, 300)]]


def test_slices_are_a_setting_of_the_model_that_a_control_may_turn_off(
    make, write_image, engine_calls
):
    predictor = make("a: {weights: a.pt, slice: 400}\nb: {weights: b.pt}")
    task = {"data": {"image": write_image("large.jpg", 500, 300)}}

    def images(text):
        engine_calls.clear()
        predict(predictor, [task], text)
        return sum(call["count"] for call in inferences(engine_calls))

    assert images(config(control("person"))) == 3
    assert images(config(control("person", attributes='model_slice="0"'))) == 1
    both = control("person"), control("car", name="whole", attributes='model_slice="0"')
    assert images(config(*both)) == 4


@pytest.mark.parametrize("side", ["x", "-1", "5000"])
def test_a_slice_that_is_no_side_of_one_is_refused(predictor, side):
    with pytest.raises(LabelConfigError, match="model_slice of 'label': found"):
        predictor.plan(config(control("person", attributes=f'model_slice="{side}"')), [], [])


@pytest.mark.parametrize(("attributes", "count"), [("", 2), ('model_merge_iou="0.5"', 1),
                                                   ('model_merge_iou="0.95"', 2)])  # fmt: skip
def test_what_two_models_say_of_the_same_object_is_one_region_where_that_is_asked_for(
    make, write_weights, write_image, attributes, count
):
    predictor = make("a: {weights: a.pt}\nc: {weights: c.pt}", weights={})
    write_weights("c.pt", {7: "crew"}, boxes=[[22, 12, 122, 60, 0.8, 7]])
    predictor.registry.refresh(10)
    text = config(
        '<RectangleLabels name="label" toName="image" ' + attributes
        + '><Label value="person" predicted_values="crew"/></RectangleLabels>'
    )  # fmt: skip
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}], text, url=["a", "c"])
    assert len(answer["result"]) == count
    assert answer["result"][0]["score"] == pytest.approx(0.9)


def test_what_two_models_say_is_merged_on_each_image_of_a_task(make, write_weights, write_image):
    predictor = make("a: {weights: a.pt}\nc: {weights: c.pt}")
    write_weights("c.pt", {7: "person"}, boxes=[[22, 12, 122, 60, 0.8, 7]])
    predictor.registry.refresh(10)
    text = config(
        control("person", attributes='model_merge_iou="0.5"'),
        image='<Image name="image" valueList="$images"/>',
    )
    task = {"data": {"images": [write_image("one.jpg"), write_image("two.jpg")]}}
    (answer,) = predict(predictor, [task], text, url=["a", "c"])
    assert [region["item_index"] for region in answer["result"]] == [0, 1]


@pytest.mark.parametrize("attribute", ['model_merge_iou="50"', 'model_slice="2"'])
def test_an_attribute_that_cannot_be_used_is_refused_when_the_model_is_connected(
    predictor, attribute
):
    with pytest.raises(LabelConfigError, match="of 'label': found"):
        predictor.plan(config(control("person", attributes=attribute)), [], [])


def test_an_image_of_too_many_slices_is_an_error_that_says_so(make, write_image):
    text = config(control("person", attributes='model_slice="64"'))
    task = {"data": {"image": write_image("large.jpg", 1400, 1200)}}
    (answer,) = predict(make(), [task], text)
    assert "which is 672 slices of 64, expected at most 256" in answer["error"]


def test_a_request_whose_client_is_gone_asks_for_no_more_slices(make, write_image, engine_calls):
    predictor = make()
    url = write_image("large.jpg", 4000, 100)
    plan = predictor.plan(config(control("person", attributes='model_slice="100"')), [], [])
    engine_calls.clear()
    looks = iter([False] * 4)
    with pytest.raises(ClientGone):
        predictor.predict([{"data": {"image": url}}], plan, lambda: next(looks, True))
    assert sum(call["count"] for call in inferences(engine_calls)) < 20


def test_a_control_for_which_a_task_has_nothing_is_left_out_and_the_others_are_drawn_for(
    predictor, write_image, caplog
):
    choices = '<Choices name="kind" toName="image" value="$kinds"/>'
    task = {"id": 5, "data": {"image": write_image()}}
    (answer,) = predict(predictor, [task], config(control("person"), choices))
    assert found(answer) == ["person"]
    assert "error" not in answer
    assert "task 5: a control is left out: data.kinds: found None" in caplog.text
    (answer,) = predict(predictor, [{"id": 6, "data": {}}], config(control("person"), choices))
    assert answer["error"].startswith("data.image: found None")


def test_a_control_for_boxes_of_bodies_is_an_ordinary_one_where_no_model_has_bodies(
    predictor, write_image
):
    points = '<KeyPointLabels name="p" toName="image"><Label value="nose" model_index="0"/>'
    text = config(control("person", name="p_bbox"), points + "</KeyPointLabels>")
    (answer,) = predict(predictor, [{"data": {"image": write_image()}}], text)
    assert [region["from_name"] for region in answer["result"]] == ["p_bbox"]
