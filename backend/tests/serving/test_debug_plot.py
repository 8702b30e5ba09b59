"""Pictures with boxes: what is drawn, and what DEBUG_PLOT keeps."""

from __future__ import annotations

import logging
import threading

import cv2
import numpy as np
import pytest

from backend.tests.controls.drawing import bodies, boxes, config, draw, masks, tag
from ls_yolo.serving import debug_plot
from ls_yolo.serving.debug_plot import Plotter, Row

GREY = np.full((100, 200, 3), 128, np.uint8)
REGION = {
    "type": "rectanglelabels",
    "original_width": 200,
    "original_height": 100,
    "score": 0.9,
    "value": {
        "x": 25,
        "y": 25,
        "width": 50,
        "height": 50,
        "rotation": 0,
        "rectanglelabels": ["person"],
    },
}


def pictures(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_box_is_drawn_where_it_is_and_the_image_itself_stays_as_it_was():
    image = GREY.copy()
    data = debug_plot.drawn(image, [Row("a", 0.5, [[(50, 25), (150, 25), (150, 75), (50, 75)]])])
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(image, GREY)
    assert abs(int(found[75, 100].max()) - 128) > 50  # the lower edge
    assert abs(int(found[90, 100].max()) - 128) < 20  # below it


@pytest.mark.parametrize("label", ["person", "船员", "", "a" * 300])
@pytest.mark.parametrize(
    "box", [[(0, 0), (200, 100)], [(-50, -50), (500, 500), (9, 9)], [(10, 10), (10, 10)]]
)
def test_any_label_and_any_place_can_be_drawn(label, box):
    rows = [Row(label, 0.5, [box]), Row(label, None, (), box), Row(label, 0.5)]
    assert debug_plot.drawn(GREY, rows).startswith(b"\xff\xd8")


def test_without_names_the_box_alone_is_drawn():
    row = Row("person", 0.5, [[(50, 25), (150, 25), (150, 75), (50, 75)]])
    named, plain = (
        cv2.imdecode(
            np.frombuffer(debug_plot.drawn(GREY, [row], named=named), np.uint8), cv2.IMREAD_COLOR
        ).astype(int)
        for named in (True, False)
    )
    assert abs(plain[75, 100].max() - 128) > 50  # the lower edge
    assert abs(plain[:22] - 128).max() < 20  # above
    assert abs(named[:22] - 128).max() > 50


def test_a_region_becomes_parts_of_the_image():
    (found,) = debug_plot.rows([REGION])
    assert (found.label, found.score) == ("person", 0.9)
    (corners,) = found.outlines
    assert sorted(corners.tolist()) == [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]


SHAPE = np.zeros((100, 200), bool)
SHAPE[25:76, 50:151] = True
RESULTS = {
    "RectangleLabels": boxes((50, 25, 151, 76, 0.9, 0)),
    "PolygonLabels": masks(SHAPE),
    "BrushLabels": masks(SHAPE),
    "BitmaskLabels": masks(SHAPE),
    "EllipseLabels": masks(SHAPE),
    "KeyPointLabels": bodies([(50, 25, 151, 76, 0.9, 0)], [[(50, 25), (150, 75)]]),
}
POINTS = "".join(
    f'<Label value="p{i}" predicted_values="person" model_index="{i}"/>' for i in (0, 1)
)


@pytest.mark.parametrize("kind", RESULTS)
def test_the_regions_of_every_control_are_drawn_where_they_are(kind):
    text = config(tag(kind, "", POINTS if kind == "KeyPointLabels" else None))
    rows = debug_plot.rows(draw(text, RESULTS[kind], 200, 100))
    places = np.concatenate(
        [place for row in rows for place in (*row.outlines, row.points) if len(place)]
    )
    # An ellipse of the same spread as a rectangle reaches out a little.
    near = 0.1 if kind == "EllipseLabels" else 0.02
    assert places.min(axis=0) == pytest.approx([0.25, 0.25], abs=near)
    assert places.max(axis=0) == pytest.approx([0.755, 0.76], abs=near)
    for row in rows:
        data = debug_plot.drawn(GREY, [row.scaled(200, 100)])
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(found.astype(int) - GREY).max() > 50


def test_a_shape_and_its_labels_are_drawn_once_under_the_label():
    beside = '<Labels name="l" toName="image"><Label value="person"/></Labels>'
    regions = draw(config(tag("Rectangle", "", ""), beside), RESULTS["RectangleLabels"], 200, 100)
    assert len(regions) == 2
    assert [row.label for row in debug_plot.rows(regions)] == ["person"]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ({"type": "choices", "value": {"choices": ["day", "rain"]}}, "day, rain"),
        ({"type": "taxonomy", "value": {"taxonomy": [["a", "b"], ["c"]]}}, "a / b, c"),
        ({"type": "number", "from_name": "persons", "value": {"number": 0}}, "persons: 0"),
    ],
)
def test_what_is_said_of_the_image_as_a_whole_is_text_without_a_place(value, label):
    (found,) = debug_plot.rows([value])
    assert (found.label, found.score, len(found.outlines)) == (label, None, 0)


def test_a_picture_of_each_prediction_is_saved_under_its_task(tmp_path):
    plotter = Plotter(tmp_path / "new" / "plots")
    for task in (7, "8/../../x", None):
        plotter.save(task, GREY, [REGION])
    plotter.wait()
    names = pictures(tmp_path / "new" / "plots")
    assert [name.partition("-task-")[2] for name in names] == ["7.jpg", "none.jpg", "none.jpg"]
    image = cv2.imread(str(tmp_path / "new" / "plots" / names[0]))
    assert image.shape == GREY.shape
    assert abs(int(image[75, 100].max()) - 128) > 50


def test_large_images_are_saved_smaller(tmp_path):
    plotter = Plotter(tmp_path)
    plotter.save(1, np.zeros((1000, 4000, 3), np.uint8), [REGION])
    plotter.wait()
    (name,) = pictures(tmp_path)
    assert cv2.imread(str(tmp_path / name)).shape == (400, 1600, 3)


def test_the_newest_stay(tmp_path):
    plotter = Plotter(tmp_path, kept=3)
    for task in range(5):
        plotter.save(task, GREY, [])
        plotter.wait()
    assert [name.partition("-task-")[2] for name in pictures(tmp_path)] == [
        "2.jpg",
        "3.jpg",
        "4.jpg",
    ]


def test_other_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    plotter = Plotter(tmp_path, kept=1)
    for task in range(3):
        plotter.save(task, GREY, [])
        plotter.wait()
    assert "holiday.jpg" in pictures(tmp_path)
    assert len(pictures(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    plotter = Plotter(tmp_path / "file")
    for task in range(3):
        plotter.save(task, GREY, [])
        plotter.wait()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "DEBUG_PLOT: no picture in" in record.getMessage()


def test_a_region_that_cannot_be_drawn_is_no_error_of_the_prediction(tmp_path, caplog):
    plotter = Plotter(tmp_path)
    plotter.save(1, GREY, [{"value": {}}])
    plotter.save(2, GREY, [REGION])
    plotter.wait()
    assert len(pictures(tmp_path)) == 1
    assert "DEBUG_PLOT: no picture" in caplog.text


def test_a_disk_that_is_slow_delays_nobody(tmp_path, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(debug_plot, "drawn", lambda image, rows, **_: go.wait(10) and b"")
    plotter = Plotter(tmp_path)
    for task in range(50):
        plotter.save(task, GREY, [])  # returns at once
    go.set()
    plotter.wait()
    assert 1 <= len(pictures(tmp_path)) <= debug_plot.WAITING + 1
