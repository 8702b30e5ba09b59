"""A SAM beside a project's own models: it predicts nothing, and draws what people point at."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.tests.serving.reloading import loads, releases, row, settle, until
from ls_yolo import metrics
from ls_yolo.config import ConfigError
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.server import base
from ls_yolo.server import models as served_models
from ls_yolo.serving.batcher import QueueFull, Released
from ls_yolo.serving.clicks import Clicks
from ls_yolo.serving.interactive import Point, Prompts
from ls_yolo.serving.planning import plan
from ls_yolo.serving.predictor import ClientGone, Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import ModelUnavailable, NoPredictions, UnknownModel

MODELS = """own: {weights: own.pt}
smart: {weights: sam.pt, task: sam, architecture: mobile_sam}
"""
OUTLINES = """<View><Image name="image" value="$image"/>
<PolygonLabels name="label" toName="image"><Label value="person"/><Label value="door"/></PolygonLabels>
<KeyPointLabels name="click" toName="image" smart="true" smartOnly="true"><Label value="person"/>
</KeyPointLabels></View>"""  # noqa: E501
PERSON = [20, 10, 120, 60, 0.9, 0]
ON, BESIDE = Point(30, 50, True), Point(32, 50, False)


@pytest.fixture
def registry(make_registry, write_weights):
    write_weights("own.pt", {0: "person"}, task="segment", boxes=[PERSON])
    write_weights("sam.pt", {})
    return make_registry(MODELS)


@pytest.fixture
def clicks(datasets):
    made = Clicks(ImageReader(datasets, None, "http://ls:8080"))
    yield made
    made._embeddings.close(10)


@pytest.fixture
def ask(registry, clicks, write_image):
    """``ask(prompts)`` answers on an image of 200 x 100 pixels, with both models."""
    task = {"id": 1, "data": {"image": write_image()}}

    def ask(drawn, config=OUTLINES, models=("own", "smart"), gone=lambda: False, **more):
        return clicks.answer(task | more, plan(registry, config, models, []), drawn, gone)

    return ask


def drawn(*points, label="person", **more):
    return Prompts(label, "click", "image", points=points, **more)


def who(answer):
    return answer["model_version"].partition("@")[0]


def embeds(calls):
    return [call["embed"] for call in calls if "embed" in call]


def outlines(calls):
    return [(call["spots"], call["box"]) for call in calls if "spots" in call]


def embedded(clicks):
    until(lambda: clicks._embeddings._values)


# models.yaml and the registry


def test_a_sam_is_loaded_listed_and_released_as_other_models_are(
    registry, models_dir, write_weights, engine_calls
):
    assert loads(engine_calls) == ["own.pt", "sam.pt"]
    assert [one.entry.name for one in registry] == ["own", "smart"]
    found = row(registry, "smart")
    assert found.pop("version").startswith("smart@")
    assert found == {"name": "smart", "state": "ready", "error": "", "task": "sam", "classes": [],
                     "engine": "fake, mobile_sam", "memory_mb": 100}  # fmt: skip
    info = metrics.REGISTRY.get_sample_value
    version = registry.version("smart")
    assert info("ls_yolo_model_info", {"model": "smart", "version": version}) == 1
    (models_dir / "models.yaml").write_text("own: {weights: own.pt}\n")
    settle(registry)
    until(lambda: registry.reap() or releases(engine_calls) == ["sam.pt"])
    assert info("ls_yolo_model_info", {"model": "smart", "version": version}) is None


def test_new_weights_of_a_sam_take_the_place_of_the_old(
    registry, write_weights, engine_calls, clicks, ask
):
    ask(drawn(ON))
    embedded(clicks)
    first = ask(drawn(ON))["model_version"]
    write_weights("sam.pt", {0: "new"})
    settle(registry)
    assert releases(engine_calls) == ["sam.pt"]
    assert who(ask(drawn(ON))) == "own"
    until(lambda: len(clicks._embeddings._values) == 2)
    assert first != ask(drawn(ON))["model_version"]
    assert len(embeds(engine_calls)) == 2


def test_a_sam_is_loaded_by_the_first_click_only(
    make_registry, write_weights, engine_calls, clicks, write_image
):
    write_weights("own.pt", {0: "person"}, task="segment", boxes=[PERSON])
    write_weights("sam.pt", {})
    registry = make_registry(MODELS, lazy=True)
    task = {"id": 1, "data": {"image": write_image()}}
    found = plan(registry, OUTLINES, ["own", "smart"], [])
    assert loads(engine_calls) == ["own.pt"]
    assert row(registry, "smart")["task"] == "sam"  # known before it is loaded
    clicks.answer(task, found, drawn(ON))
    until(lambda: loads(engine_calls) == ["own.pt", "sam.pt"])


def test_the_default_model_is_one_that_predicts(make_registry, write_weights):
    write_weights("own.pt", {0: "person"})
    write_weights("sam.pt", {})
    first, second = MODELS.splitlines()
    assert make_registry(f"{second}\n{first}").default == "own"
    assert make_registry(second).default == "smart"  # where there is none
    assert make_registry(f"{second}\n{first}", default="smart").default == "smart"


def test_what_predicts_is_not_asked_of_a_sam_nor_clicks_of_what_is_none(registry):
    with pytest.raises(NoPredictions, match=r"'smart' is a SAM, .*; expected another model: own"):
        registry.get("smart")
    with pytest.raises(UnknownModel, match="no SAM is called 'own'"):
        registry.sam("own")
    with pytest.raises(UnknownModel, match="did you mean 'smart'"):
        registry.get("smarts")
    assert registry.predicting(["smart", "own"]) == ["own"]
    assert registry.predicting(["smart"]) == ["smart"]


# Planning


def test_a_sam_changes_nothing_of_what_is_predicted(registry, datasets, write_image, engine_calls):
    with_sam = plan(registry, OUTLINES, ["own", "smart"], [])
    without = plan(registry, OUTLINES, ["own"], [])
    assert (with_sam.bindings, with_sam.version, with_sam.unmapped, with_sam.waiting) == (
        without.bindings, without.version, without.unmapped, "",
    )  # fmt: skip
    predictor = Predictor(registry, ImageReader(datasets, None, "http://ls:8080"))
    (answer,) = predictor.predict([{"id": 1, "data": {"image": write_image()}}], with_sam)
    assert [region["from_name"] for region in answer["result"]] == ["label"]
    assert not embeds(engine_calls)


@pytest.mark.parametrize(
    ("control", "draws"),
    [
        ('<PolygonLabels name="c" toName="image"><Label value="person"/></PolygonLabels>', True),
        ('<BrushLabels name="c" toName="image"><Label value="person"/></BrushLabels>', True),
        ('<BitmaskLabels name="c" toName="image"><Label value="person"/></BitmaskLabels>', True),
        ('<EllipseLabels name="c" toName="image"><Label value="person"/></EllipseLabels>', True),
        ('<RectangleLabels name="c" toName="image"><Label value="person"/></RectangleLabels>',
         True),
        ('<Labels name="l" toName="image"><Label value="person"/></Labels>'
         '<Brush name="c" toName="image"/>', True),
        ('<Choices name="c" toName="image"><Choice value="person"/></Choices>', False),
        ('<Number name="c" toName="image" model_count="person"/>', False),
    ],
)  # fmt: skip
def test_a_sam_draws_in_every_control_that_shows_outlines_and_in_no_other(registry, control, draws):
    text = f'<View><Image name="image" value="$image"/>{control}</View>'
    found = plan(registry, text, ["own", "smart"], [])
    assert [one.control.from_name for one in found.sams] == (["c"] if draws else [])
    assert not found.unmapped


def test_a_control_for_clicks_alone_is_no_fault_of_the_models(make_registry, write_weights):
    write_weights("own.pt", {0: "person"})
    write_weights("sam.pt", {})
    registry = make_registry(MODELS)
    text = OUTLINES.replace("<PolygonLabels", """<RectangleLabels name="box" toName="image">
        <Label value="person"/></RectangleLabels><PolygonLabels""", 1)  # fmt: skip
    assert not plan(registry, text, ["own", "smart"], []).warnings
    (said,) = plan(registry, text, ["own"], []).warnings
    assert "found the models own (detect)" in said
    # Where nothing of the own model can be drawn, it is connected in vain.
    with pytest.raises(LabelConfigError, match=r"found the models own \(detect\), expected one"):
        plan(registry, OUTLINES, ["own", "smart"], [])


def test_a_model_of_a_control_alone_leaves_clicks_to_the_sam_of_the_connection(registry):
    text = OUTLINES.replace('name="label"', 'name="label" model_path="own"')
    found = plan(registry, text, ["smart"], [])
    assert [one.model.entry.name for one in found.bindings] == ["own"]
    assert [one.control.from_name for one in found.sams] == ["label"]
    only = plan(registry, text.replace('"own"', '"smart"'), ["own"], [])
    assert not only.bindings
    assert [one.control.from_name for one in only.sams] == ["label"]


def test_a_sam_alone_predicts_nothing_and_says_so(registry, datasets, write_image, ask):
    found = plan(registry, OUTLINES, ["smart"], [])
    assert found.version == registry.version("smart")
    assert found.waiting == (
        f"{found.version} answers what is drawn with a smart tool, and nothing else; for "
        "predictions connect a model of your own beside it"
    )
    predictor = Predictor(registry, ImageReader(datasets, None, "http://ls:8080"))
    with pytest.raises(LabelConfigError, match="nothing to draw yet: smart@"):
        predictor.predict([{"id": 1, "data": {"image": write_image()}}], found)
    assert who(ask(drawn(ON), models=["smart"])) == "smart"
    choices = '<View><Image name="image" value="$image"/><Choices name="c" toName="image">'
    with pytest.raises(LabelConfigError, match=r"found Choices, expected one that a SAM draws in"):
        plan(registry, f'{choices}<Choice value="a"/></Choices></View>', ["smart"], [])


def test_a_sam_that_cannot_be_loaded_leaves_the_own_models_alone(
    make_registry, write_weights, models_dir, clicks, write_image
):
    write_weights("own.pt", {0: "person"}, task="segment", boxes=[PERSON])
    registry = make_registry(MODELS)
    task = {"id": 1, "data": {"image": write_image()}}
    found = plan(registry, OUTLINES, ["own", "smart"], [])
    assert found.sams == ()
    assert who(clicks.answer(task, found, drawn(ON))) == "own"
    with pytest.raises(ModelUnavailable, match=r"'sam\.pt' is not in"):
        plan(registry, OUTLINES, ["smart"], [])


def test_without_any_model_that_can_be_loaded_nothing_starts(make_registry):
    with pytest.raises(ConfigError, match=r"own\.weights.*\n.*smart\.weights"):
        make_registry(MODELS)


# Clicks


def test_the_own_model_answers_the_first_click_and_the_sam_those_after(ask, clicks, engine_calls):
    first = ask(drawn(ON))
    assert who(first) == "own"
    embedded(clicks)
    engine_calls.clear()
    second = ask(drawn(ON))
    assert who(second) == "smart"
    assert second["score"] == pytest.approx(0.8)
    (region,) = second["result"]
    assert (region["from_name"], region["type"]) == ("label", "polygonlabels")
    assert region["value"]["polygonlabels"] == ["person"]
    assert (region["original_width"], region["original_height"]) == (200, 100)
    xs, ys = zip(*region["value"]["points"], strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == pytest.approx((25, 35, 40, 60))
    # Neither did the own model look again, nor the SAM.
    assert engine_calls == [{"weights": "sam.pt", "spots": [(60, 50, True)], "box": None}]


def test_all_that_was_drawn_of_an_object_goes_to_the_sam_in_pixels(ask, clicks, engine_calls):
    ask(drawn(ON))
    embedded(clicks)
    ask(drawn(ON, BESIDE, box=(10, 20, 150, 60)))
    assert outlines(engine_calls) == [
        ([(60, 50, True), (64, 50, False)], (20, 20, 200, 60)),  # cut at the edge of the image
    ]


def test_what_is_beside_the_image_or_only_says_where_it_is_not_is_for_the_own_model(
    ask, clicks, engine_calls
):
    ask(drawn(ON))
    embedded(clicks)
    ask(drawn(BESIDE))
    ask(drawn(Point(140, 50, True)))
    ask(drawn(box=(120, 20, 150, 60)))
    assert outlines(engine_calls) == []


def test_what_the_own_model_does_not_find_waits_for_the_sam(ask, engine_calls):
    assert who(ask(drawn(Point(90, 90, True)))) == "smart"  # nothing of the own model is there
    assert embeds(engine_calls) == [(200, 100)]
    door = ask(drawn(ON, label="door"))  # no class of the own model
    assert door["result"][0]["value"]["polygonlabels"] == ["door"]
    assert embeds(engine_calls) == [(200, 100)]
    assert ask(drawn(ON, label="dog"))["result"] == []  # no control has that label


@pytest.mark.parametrize(
    ("tag", "key"),
    [("BrushLabels", "rle"), ("BitmaskLabels", "imageDataURL"), ("EllipseLabels", "radiusX"),
     ("RectangleLabels", "width")],
)  # fmt: skip
def test_the_answer_is_in_the_form_of_the_control(ask, tag, key):
    answer = ask(drawn(ON, label="door"), OUTLINES.replace("PolygonLabels", tag))
    (region,) = answer["result"]
    assert region["value"][tag.lower()] == ["door"]
    assert key in region["value"]


def test_each_image_of_several_has_an_embedding_of_its_own(
    registry, clicks, write_image, engine_calls
):
    text = OUTLINES.replace('value="$image"', 'valueList="$images"')
    images = [write_image("a.jpg", 200, 100), write_image("b.jpg", 100, 300)]
    found = plan(registry, text, ["own", "smart"], [])
    for number in (0, 1):
        answer = clicks.answer(
            {"id": 1, "data": {"images": images}},
            found,
            drawn(ON, label="door", item_index=number),
        )
        assert [region["item_index"] for region in answer["result"]] == [number]
    assert embeds(engine_calls) == [(200, 100), (100, 300)]


def test_parallel_clicks_make_one_embedding(ask, engine_calls, registry, monkeypatch):
    segmenter = registry.sam("smart").segmenter
    embed, go = segmenter.embed, threading.Event()

    def slow(prepared):
        assert go.wait(10)
        return embed(prepared)

    monkeypatch.setattr(segmenter, "embed", slow)
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(ask, drawn(ON, label="door")) for _ in range(6)]
        time.sleep(0.2)
        assert who(ask(drawn(ON))) == "own"  # is not held up
        go.set()
        assert {who(answer.result(10)) for answer in found} == {"smart"}
    assert len(embeds(engine_calls)) == 1


def test_who_waits_for_an_embedding_is_dropped_when_overtaken_or_gone(
    ask, registry, monkeypatch, engine_calls
):
    segmenter = registry.sam("smart").segmenter
    embed, inside, go = segmenter.embed, threading.Event(), threading.Event()

    def slow(prepared):
        inside.set()
        assert go.wait(10)
        return embed(prepared)

    monkeypatch.setattr(segmenter, "embed", slow)
    with ThreadPoolExecutor(2) as pool:
        one, both = frozenset(["a"]), frozenset(["a", "b"])
        first = pool.submit(ask, drawn(ON, label="door", ids=one))
        assert inside.wait(10)
        second = pool.submit(ask, drawn(ON, BESIDE, label="door", ids=both))
        assert first.result(10)["result"] == []
        with pytest.raises(ClientGone):
            ask(drawn(ON, label="door"), gone=lambda: True)
        go.set()
        assert who(second.result(10)) == "smart"
    assert len(embeds(engine_calls)) == 1  # begun for the first, used by the second


def test_an_image_that_cannot_be_had_is_an_error(ask):
    gone = ask(drawn(ON), data={"image": "/data/local-files/?d=none.jpg"}, models=["smart"])
    assert (gone["result"], gone["score"]) == ([], None)
    assert "none.jpg" in gone["error"]
    assert ask(drawn(ON), data={})["error"].startswith("data.image: found None")


def test_an_embedding_of_weights_that_were_replaced_is_never_decoded(
    ask, registry, write_weights, clicks, engine_calls, write_image
):
    found = plan(registry, OUTLINES, ["own", "smart"], [])
    task = {"id": 1, "data": {"image": write_image()}}
    clicks.answer(task, found, drawn(ON, label="door"))
    write_weights("sam.pt", {0: "new"})
    settle(registry)
    with pytest.raises(Released):
        clicks.answer(task, found, drawn(ON, label="door"))


def test_where_too_many_images_wait_the_own_model_answers_and_what_it_cannot_is_refused(
    ask, clicks, monkeypatch
):
    def full(*arguments):
        raise QueueFull("4 images wait for a SAM to look at them; try again shortly")

    monkeypatch.setattr(clicks._embeddings, "_job", full)
    assert who(ask(drawn(ON))) == "own"
    with pytest.raises(QueueFull):
        ask(drawn(ON, label="door"))


# HTTP


class Nobody:
    """A Label Studio that knows no project."""

    def connections(self, project):
        return []


@pytest.fixture
def client(registry, datasets):
    predictor = Predictor(registry, ImageReader(datasets, None, "http://ls:8080"))
    app = served_models.build(
        predictor, ModelChoices(Nobody(), 30.0), "", "", base.RequestLimiter(16)
    )
    return app.test_client()


def test_label_studio_sees_one_version_of_what_predicts(client, registry):
    own = registry.version("own")
    answer = client.post("/m/own+smart/setup", json={"project": "3.0", "schema": OUTLINES})
    assert list(answer.json["unmapped"]["label"]) == ["door"]
    rest = {key: value for key, value in answer.json.items() if key != "unmapped"}
    assert rest == {"model_version": own, "warnings": [], "waiting": ""}
    assert client.post("/m/own+smart/setup", json={}).json["model_version"] == own
    assert client.get("/m/own+smart/versions").json["versions"] == [own]
    assert client.get("/versions").json["versions"] == [own]
    assert {row["name"] for row in client.get("/readyz").json["models"]} == {"own", "smart"}


def test_a_project_with_a_sam_alone_connects_and_answers_what_is_drawn(
    client, registry, write_image
):
    answer = client.post("/m/smart/setup", json={"project": "3.0", "schema": OUTLINES})
    assert answer.json["model_version"] == registry.version("smart")
    assert answer.json["waiting"].startswith("smart@")
    assert client.get("/m/smart/versions").json["versions"] == [registry.version("smart")]
    task = {"id": 1, "data": {"image": write_image()}}
    body = {"tasks": [task], "label_config": OUTLINES, "project": "3.0"}
    refused = client.post("/m/smart/predict", json=body)
    assert refused.status_code == 400
    assert "connect a model of your own beside it" in refused.json["error"]
    click = {"type": "keypointlabels", "from_name": "click", "to_name": "image", "value": {
        "x": 30, "y": 50, "width": 0.4, "keypointlabels": ["person"]}}  # fmt: skip
    body["params"] = {"context": {"result": [click]}}
    (answer,) = client.post("/m/smart/predict", json=body).json["results"]
    assert who(answer) == "smart"
    assert answer["result"][0]["value"]["polygonlabels"] == ["person"]
