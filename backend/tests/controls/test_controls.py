"""Controls are found by being in their folder."""

from __future__ import annotations

import pytest

from ls_yolo import controls
from ls_yolo.controls import NothingToDraw

FILE = """
from ls_yolo.controls.base import ControlType
from ls_yolo.results import Masks

CONTROL = ControlType("PolygonLabels", "Image", lambda _: (Masks,), lambda *args: [])
"""


def test_a_file_that_is_dropped_into_the_folder_is_one_more_control(tmp_path, monkeypatch):
    (tmp_path / "dropped").mkdir()
    (tmp_path / "dropped" / "__init__.py").touch()
    (tmp_path / "dropped" / "polygon.py").write_text(FILE)
    (tmp_path / "dropped" / "helper.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    found = controls.find([str(tmp_path / "dropped")], "dropped")
    assert [(control.tag, control.object_tag) for control in found.values()] == [
        ("PolygonLabels", "Image")
    ]


def test_every_control_of_the_folder_declares_what_it_draws():
    assert "rectanglelabels" in controls.CONTROLS
    for tag, control in controls.CONTROLS.items():
        assert tag == control.tag.lower()
        assert control.object_tag in ("Image", "Video")
        assert callable(control.draws)


def test_a_control_is_drawn_for_on_the_object_that_it_declares_only():
    text = '<View><Text name="t" value="$t"/><RectangleLabels name="l" toName="t">'
    with pytest.raises(
        NothingToDraw, match=r"found RectangleLabels on Text, expected one of .*RectangleL"
    ):
        controls.drawn(text + '<Label value="A"/></RectangleLabels></View>')
