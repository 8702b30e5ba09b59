"""A sample of a project on one sheet."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ls_yolo.cli import main, preview
from ls_yolo.cli.preview import Sheet, Shown, page, png, spread


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


def sheet(*shown, faults=()):
    return Sheet("Ships & <boats>", "ships@0123456789ab", shown, faults)


def test_the_page_holds_every_picture_what_was_found_and_what_no_class_stands_for():
    found = page(
        sheet(
            Shown(7, 0.83, {"ship": 2, "<buoy>": 1}, [("frame 3", jpeg(60, 40, 90))]),
            Shown(8, None, {}, [], "data.image: found None"),
            faults=["label 'tug' of 'label': no class is called 'tug'"],
        )
    )
    assert "Ships &amp; &lt;boats&gt;" in found
    assert "task 7: 2 ship, 1 &lt;buoy&gt; (0.83)" in found
    assert "task 8: data.image: found None" in found
    assert "no class is called" in found
    ((data, name),) = re.findall(r'base64,([^"]+)" alt="">([^<]*)', found)
    assert cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1).shape == (40, 60, 3)
    assert name == "frame 3"


def test_a_task_with_nothing_on_it_says_so_and_one_that_failed_says_why():
    assert Shown(3, 0.0, {}).caption() == "task 3: nothing"
    assert Shown(3, None, {}, error="gone").caption("frame 2") == "task 3, frame 2: gone"


def test_what_is_said_of_a_task_as_a_whole_is_in_its_caption_and_counted():
    one = Shown(3, 0.5, {"ship": 2}, said=["crowd: 2", "day"])
    assert one.caption() == "task 3: 2 ship, crowd: 2, day (0.50)"
    assert dict(sheet(one, one).counts) == {"ship": 4, "crowd: 2": 2, "day": 2}


@given(
    st.lists(
        st.builds(
            lambda task, pictures, said: Shown(task, 0.5, {"a": 1}, pictures, said=said),
            st.integers(1, 10**9),
            st.lists(
                st.tuples(
                    st.sampled_from(["", "frame 3"]),
                    st.builds(jpeg, st.integers(1, 600), st.integers(1, 600), st.just(90)),
                ),
                max_size=3,
            ),
            st.lists(st.text(max_size=200), max_size=2),
        ),
        min_size=1,
        max_size=9,
    ),
    st.lists(st.text(max_size=300), max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_any_sheet_is_a_picture_as_wide_as_its_cells(shown, faults):
    found = cv2.imdecode(np.frombuffer(png(sheet(*shown, faults=faults)), np.uint8), 1)
    cells = sum(len(one.pictures) or 1 for one in shown)
    assert found.shape[1] == preview.CELL * max(2, min(preview.COLUMNS, cells))


def test_the_sheet_has_a_cell_for_each_picture_row_by_row_below_what_it_is_of():
    shown = [Shown(n, 0.5, {"a": 1}, [("", jpeg(100, 50, (0, 0, 40 * n)))]) for n in range(1, 7)]
    found = cv2.imdecode(
        np.frombuffer(png(sheet(*shown, Shown(9, None, {}, (), "no"))), np.uint8), 1
    )
    # A picture is as wide as its cell but for the gap, and half as high; a line of text is below.
    top, picture = 3 * preview.LINE + preview.GAP, (preview.CELL - preview.GAP) // 2
    height = picture + preview.LINE + preview.GAP
    for number in range(6):
        y = top + number // preview.COLUMNS * height
        x = number % preview.COLUMNS * preview.CELL
        red = found[y + 2 : y + picture - 2, x + 2 : x + 2 * picture - 2, 2].astype(int)
        assert np.abs(red - 40 * (number + 1)).max() < 6
    assert len(found) == top + 2 * height


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_predicted(tmp_path, capsys):
    (tmp_path / "file").touch()
    for path, why in [("file", "found a file"), ("file/x", "Not a directory")]:
        assert main.main(["preview", "--project", "1", "--output", str(tmp_path / path)]) == 1
        said = capsys.readouterr().err
        assert why in said and str(tmp_path / path) in said


def test_without_a_token_nothing_is_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    assert main.main(["preview", "--project", "1", "--output", str(tmp_path)]) == 77
    assert "LABEL_STUDIO_API_KEY: found nothing" in capsys.readouterr().err
