"""What is answered to a smart tool."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ls_yolo.serving.clicks import Clicks
from ls_yolo.serving.interactive import Point, Prompts
from ls_yolo.serving.planning import plan
from ls_yolo.serving.predictor import ClientGone, Predictor
from ls_yolo.serving.reading import ImageReader

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="person"/><Label value="car"/></RectangleLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="person"/></KeyPointLabels>
<RectangleLabels name="tool" toName="image" smart="true" smartOnly="true"><Label value="car"/>
</RectangleLabels></View>"""  # noqa: E501
BOXES = [[20, 10, 120, 60, 0.9, 0], [60, 10, 90, 60, 0.07, 0], [0, 0, 100, 50, 0.3, 1]]


@pytest.fixture
def registry(make_registry, write_weights):
    write_weights("a.pt", {0: "person", 1: "car"}, boxes=BOXES)
    return make_registry("a: {weights: a.pt}")


@pytest.fixture
def ask(registry, datasets, write_image):
    """``ask(prompts)`` answers on an image of 200 x 100 pixels."""
    clicks = Clicks(ImageReader(datasets, None, "http://ls:8080"))
    task = {"id": 1, "data": {"image": write_image()}}

    def ask(drawn, config=CONFIG, **more):
        return clicks.answer(task | more, plan(registry, config, [], []), drawn)

    return ask


def click(x, y, label="person", **more):
    return Prompts(label, "point", "image", points=(Point(x, y, True),), **more)


def places(answer):
    return [
        (r["from_name"], r["value"]["rectanglelabels"], r["value"]["x"] * 2, r["value"]["y"])
        for r in answer["result"]
    ]


def test_a_click_is_answered_with_the_object_under_it_in_the_control_with_its_label(ask):
    answer = ask(click(25, 30))
    assert places(answer) == [("label", ["person"], pytest.approx(20), pytest.approx(10))]
    assert answer["score"] == pytest.approx(0.9)
    assert answer["model_version"].startswith("a@")


def test_an_object_that_the_model_is_unsure_of_is_found_where_a_person_points_at_it(ask):
    beside = Prompts("person", "point", "image",
                     points=(Point(35, 30, True), Point(15, 30, False)))  # fmt: skip
    assert places(ask(beside)) == [("label", ["person"], pytest.approx(60), pytest.approx(10))]


def test_a_click_on_nothing_has_an_empty_answer(ask):
    assert ask(click(99, 99))["result"] == []
    assert ask(click(25, 30, label="dog"))["result"] == []


def test_the_next_click_on_an_image_asks_the_model_no_more(ask, engine_calls):
    ask(click(25, 30))
    engine_calls.clear()
    assert ask(click(30, 30))["result"]
    assert engine_calls == []


def test_for_a_click_a_large_image_is_decoded_small_and_its_objects_are_where_they_were(
    ask, engine_calls, write_image
):
    large = {"data": {"image": write_image("large.jpg", 6400, 3200)}}
    engine_calls.clear()
    answer = ask(click(1, 1), **large)
    (call,) = engine_calls
    assert call["decoded"] == [(3200, 1600)]
    (region,) = answer["result"]
    assert (region["original_width"], region["original_height"]) == (6400, 3200)


def test_a_drawn_box_is_looked_into_at_full_resolution(ask, engine_calls):
    engine_calls.clear()
    drawn = Prompts("car", "tool", "image", box=(30, 40, 50, 60))
    answer = ask(drawn)
    (call,) = engine_calls
    # 60 to 100 by 40 to 60 pixels, and 32 around it.
    assert call["decoded"] == [(104, 84)]
    # The engine's box of the cut, back where that was cut out.
    assert places(answer) == [("label", ["car"], pytest.approx(28), pytest.approx(8))]


def test_what_is_drawn_by_a_tool_alone_is_answered_in_it(ask):
    config = CONFIG.replace('name="label"', 'name="label" model_skip="true"')
    assert places(ask(click(10, 10, label="car"), config))[0][:2] == ("tool", ["car"])


def test_a_tool_is_no_control_that_predictions_are_made_for(registry, datasets, write_image):
    predictor = Predictor(registry, ImageReader(datasets, None, "http://ls:8080"))
    found = predictor.plan(CONFIG, [], [])
    assert "point" not in found.unmapped
    (answer,) = predictor.predict([{"data": {"image": write_image()}}], found)
    assert {region["from_name"] for region in answer["result"]} == {"label"}


def test_an_image_that_cannot_be_had_is_an_error(ask):
    gone = ask(click(1, 1), data={"image": "/data/local-files/?d=none.jpg"})
    assert (gone["result"], gone["score"]) == ([], None)
    assert "none.jpg" in gone["error"]
    assert ask(click(1, 1), data={})["error"].startswith("data.image: found None")


def test_a_request_that_is_overtaken_is_dropped_and_the_last_is_answered(
    registry, datasets, write_image, monkeypatch
):
    clicks = Clicks(ImageReader(datasets, None, "http://ls:8080"))
    task = {"id": 1, "data": {"image": write_image()}}
    found = plan(registry, CONFIG, [], [])
    engine = registry.get("a").batcher._engine
    run, inside, go = engine.predict, threading.Event(), threading.Event()

    def slow(*arguments):
        inside.set()
        assert go.wait(10)
        return run(*arguments)

    monkeypatch.setattr(engine, "predict", slow)
    with ThreadPoolExecutor(3) as pool:
        one, both = frozenset(["a"]), frozenset(["a", "b"])
        first = pool.submit(clicks.answer, task, found, click(25, 30, ids=one))
        assert inside.wait(10)
        # Of another object: it waits for its turn, and drops nobody.
        other = pool.submit(clicks.answer, task, found, click(25, 30, ids=frozenset(["c"])))
        time.sleep(0.5)
        assert not first.done()
        second = pool.submit(clicks.answer, task, found, click(26, 30, ids=both | {"c"}))
        assert first.result(10)["result"] == []
        assert other.result(10)["result"] == []
        go.set()
        assert places(second.result(10))[0][:2] == ("label", ["person"])


def test_who_is_gone_is_not_answered(registry, datasets, write_image):
    clicks = Clicks(ImageReader(datasets, None, "http://ls:8080"))
    task = {"id": 1, "data": {"image": write_image()}}
    with pytest.raises(ClientGone):
        clicks.answer(task, plan(registry, CONFIG, [], []), click(25, 30), lambda: True)


def test_clicks_on_one_of_several_images_are_answered_on_it(registry, datasets, write_image):
    clicks = Clicks(ImageReader(datasets, None, "http://ls:8080"))
    config = CONFIG.replace('value="$image"', 'valueList="$images"')
    task = {"id": 1, "data": {"images": [write_image("a.jpg"), write_image("b.jpg")]}}
    found = plan(registry, config, [], [])
    answer = clicks.answer(task, found, click(25, 30, item_index=1))
    assert [region["item_index"] for region in answer["result"]] == [1]
