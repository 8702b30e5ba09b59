"""An image that a person tries: limits, and what is drawn of each kind of result."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.tests.server.status.conftest import HTML
from ls_yolo.results import Boxes, Keypoints, Mask, Masks, OrientedBoxes
from ls_yolo.server.status import trying
from ls_yolo.server.status.trying import Shape
from ls_yolo.serving.batcher import QueueFull, Released


def jpeg(width=200, height=100, **more):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "JPEG", **more)
    return file.getvalue()


def attempt(client, data=None, headers=None, **form):
    image = (io.BytesIO(jpeg() if data is None else data), "a.jpg")
    return client.post("/try", data={"image": image, **form}, headers=headers)


def test_programs_get_what_the_command_line_prints(client):
    assert attempt(client).json == {
        "model": client.get("/versions").json["versions"][0],
        "width": 200,
        "height": 100,
        "boxes": [{"label": "person", "score": 0.9, "box": [20.0, 10.0, 120.0, 60.0]}],
    }


def test_a_browser_gets_the_page_with_the_picture_and_what_is_on_it(client):
    answer = attempt(client, headers=HTML, model="outline", conf="0.3")
    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    assert 'viewBox="0 0 200 100"' in answer.text
    assert 'href="data:image/jpeg;base64,' in answer.text
    assert "cat 0.80" in answer.text
    # What was chosen stays chosen.
    assert re.search(r"<option selected>outline</option>", answer.text)
    assert 'value="0.3"' in answer.text


def test_what_the_image_as_a_whole_is_taken_for_is_listed_without_a_place(client):
    assert attempt(client, model="when", conf="0").json["classes"] == [
        {"label": "night", "score": 0.7},
        {"label": "day", "score": 0.3},
    ]
    text = attempt(client, headers=HTML, model="when", conf="0").text
    assert "night" in text
    assert 'class="shape' not in text


def test_the_threshold_holds_for_this_image_and_the_models_own_without_one(client):
    assert len(attempt(client).json["boxes"]) == 1
    assert attempt(client, conf="0.95").json["boxes"] == []
    text = attempt(client, headers=HTML, conf="0.95").text
    assert "nothing above the threshold" in " ".join(text.split())


def test_places_are_those_of_the_upright_image(client):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    answer = attempt(client, jpeg(200, 100, exif=exif)).json
    assert (answer["width"], answer["height"]) == (100, 200)


def test_a_large_image_is_shown_smaller_and_its_places_are_not(client):
    text = attempt(client, jpeg(4000, 2000), headers=HTML).text
    assert 'viewBox="0 0 4000 2000"' in text
    assert len(text) < 300_000
    assert len(trying._jpeg(np.zeros((2000, 4000, 3), np.uint8))) < 100_000
    shown = cv2.imdecode(
        np.frombuffer(trying._jpeg(np.zeros((2000, 4000, 3), np.uint8)), np.uint8), 1
    )
    assert shown.shape == (800, 1600, 3)


@pytest.mark.parametrize(
    ("data", "form", "status", "says"),
    [
        (b"no image", {}, 400, "the image: not an image that can be decoded"),
        (b"", {}, 400, "image: found none, expected the file of an image"),
        (None, {"model": "persn"}, 404, "did you mean"),
        (None, {"conf": "2"}, 400, "expected a number from 0 to 1"),
        (None, {"conf": "nan"}, 400, "expected a number from 0 to 1"),
        (None, {"conf": "half"}, 400, "expected a number from 0 to 1"),
        (b"x" * (trying.MOST_BYTES + 1), {}, 400, "larger than 32 MiB"),
        (b"x" * (trying.MOST_BYTES + 1_000_000), {}, 413, ""),
    ],
)
@pytest.mark.parametrize("headers", [None, HTML])
def test_what_cannot_be_tried_says_why(client, data, form, status, says, headers):
    answer = attempt(client, data, headers, **form)
    assert answer.status_code == status
    text = answer.text.replace("&#39;", "'")
    assert says in text
    assert ("<!doctype html>" in text) == (headers is HTML)
    assert not headers or 'role="alert"' in text


def test_without_a_file_it_says_what_is_missing(client):
    answer = client.post("/try", data={"model": "person"})
    assert (answer.status_code, "image: found none" in answer.json["error"]) == (400, True)


def test_a_model_that_was_replaced_meanwhile_is_asked_for_again(client, monkeypatch):
    calls = []
    once = trying.Trier._try

    def replaced(self, *arguments):
        calls.append(1)
        if len(calls) < 3:
            raise Released("the model was replaced")
        return once(self, *arguments)

    monkeypatch.setattr(trying.Trier, "_try", replaced)
    assert attempt(client).status_code == 200
    assert len(calls) == 3


def test_where_too_much_waits_it_says_so_in_the_page(client, monkeypatch):
    def full(*arguments):
        raise QueueFull("the queue is full; try again shortly")

    monkeypatch.setattr(trying.Trier, "_try", full)
    answer = attempt(client, headers=HTML)
    assert answer.status_code == 429
    assert "the queue is full; try again shortly" in answer.text


def test_who_knows_no_password_tries_nothing(make, engine_calls):
    client = make("user", "password")
    before = len(engine_calls)
    assert attempt(client, headers=HTML).status_code == 401
    assert len(engine_calls) == before


# What is drawn


class Named:
    names = MappingProxyType({0: "ship", 1: "buoy"})


ONE = Boxes(
    np.array([[10, 20, 30, 60]], np.float32), np.array([0.5], np.float32), np.zeros(1, np.int64)
)


def shapes(result, found=None):
    return list(trying._shapes(result, Named, found or {}, 1.0))


def test_a_box_is_drawn_around_its_edges():
    assert shapes(ONE) == [
        Shape("ship", 0.5, "M10.0 20.0L30.0 20.0L30.0 60.0L10.0 60.0Z", (), 10.0, 20.0)
    ]


def test_a_turned_box_is_drawn_turned():
    turned = OrientedBoxes(
        np.array([[50, 50, 20, 10, np.pi / 2]], np.float32), ONE.scores, ONE.classes
    )
    (shape,) = shapes(turned)
    places = {tuple(map(float, pair.split())) for pair in re.split("[MLZ]", shape.path)[1:-1]}
    assert places == {(45.0, 40.0), (55.0, 40.0), (55.0, 60.0), (45.0, 60.0)}


def test_a_mask_is_drawn_with_its_hole():
    pixels = np.zeros((40, 40), np.bool_)
    pixels[5:35, 5:35] = True
    pixels[15:25, 15:25] = False
    (shape,) = shapes(Masks(ONE, [lambda: Mask(100, 200, pixels)]))
    assert shape.path.count("M") == 2
    lines = [
        np.array([list(map(float, pair.split())) for pair in re.split("[LZ]", line) if pair])
        for line in shape.path.split("M")[1:]
    ]
    drawn = np.zeros((240, 140), np.uint8)
    cv2.fillPoly(drawn, [np.round(line - 0.5).astype(np.int32) for line in lines], 1)
    both = np.zeros_like(drawn)
    both[200:240, 100:140] = pixels
    # OpenCV fills the line itself too, of holes as well.
    assert np.count_nonzero(drawn != both) <= 4 * 12


def test_a_body_is_drawn_with_the_points_that_are_seen():
    points = np.array([[[12, 22], [28, 58], [0, 0]]], np.float32)
    scores = np.array([[0.9, 0.3, 0.1]], np.float32)
    (shape,) = shapes(Keypoints(ONE, points, scores))
    assert shape.points == [(12.0, 22.0), (28.0, 58.0)]
    assert shape.path.startswith("M10.0 20.0")


def test_a_label_has_one_colour_of_those_that_the_style_has():
    text = Path(trying.__file__).with_name("static").joinpath("status.css").read_text()
    assert all(f".colour-{number} " in text for number in range(trying.COLOURS))
    assert {Shape(f"class {n}", 1).colour for n in range(200)} == set(range(trying.COLOURS))
    assert Shape("ship", 0.1).colour == Shape("ship", 0.9).colour
