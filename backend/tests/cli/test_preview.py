"""A sample of a project on one sheet."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.cli import preview
from ls_yolo.cli.preview import Shown, page, sheet, spread


def jpeg(width, height, colour):
    good, data = cv2.imencode(".jpg", np.full((height, width, 3), colour, np.uint8))
    assert good
    return data.tobytes()


@given(st.integers(0, 10_000), st.integers(1, preview.MOST))
def test_a_sample_is_spread_over_the_project_and_has_no_task_twice(count, most):
    places = spread(count, most)
    assert len(places) == len(set(places)) == min(count, most)
    assert places == sorted(places)
    assert all(1 <= place <= count for place in places)
    steps = np.diff(places)
    assert not len(steps) or steps.max() - steps.min() <= 1


def test_the_page_holds_every_picture_what_was_found_and_what_no_class_stands_for():
    found = page(
        "Ships & <boats>",
        "ships@0123456789ab",
        [
            Shown(7, 0.83, {"ship": 2, "<buoy>": 1}, [jpeg(60, 40, 90)]),
            Shown(8, None, {}, [], "data.image: found None"),
        ],
        {"label": {"tug": "no class is called 'tug'"}},
    )
    assert "Ships &amp; &lt;boats&gt;" in found
    assert "task 7: 2 ship, 1 &lt;buoy&gt; (0.83)" in found
    assert "task 8: data.image: found None" in found
    assert "no class is called" in found
    (data,) = re.findall(r"base64,([^\"]+)", found)
    assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1).shape == (40, 60, 3)


def test_an_image_with_nothing_on_it_says_so():
    assert Shown(3, 0.0, {}).caption == "task 3: nothing"


def test_the_sheet_has_a_cell_for_each_picture_row_by_row():
    shown = [Shown(n, 0.5, {"a": 1}, [jpeg(100, 50, (0, 0, 40 * n))]) for n in range(6)]
    found = cv2.imdecode(np.frombuffer(sheet([*shown, Shown(9, None, {}, (), "no")]), np.uint8), 1)
    cell, line = preview.CELL, preview.LINE
    assert found.shape == (2 * (cell + line), preview.COLUMNS * cell, 3)
    for number in range(6):
        y, x = number // preview.COLUMNS * (cell + line), number % preview.COLUMNS * cell
        assert abs(int(found[y + 50, x + 100, 2]) - 40 * number) < 6
