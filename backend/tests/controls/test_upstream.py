"""The configurations that HumanSignal's YOLO example documents, and those of our own docs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface

from backend.tests.controls.drawing import bodies, boxes, classes, draw, faults, masks, oriented
from ls_yolo import controls
from ls_yolo.labelstudio import label_config
from ls_yolo.results import RESULTS

IMAGE = '<Image name="image" value="$image"/>'
BODY = """nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow
right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle
right_ankle""".split()  # noqa: SIM905
PARTS = "".join(
    f'<Label value="{name}" predicted_values="person" model_index="{number}" background="red"/>'
    for number, name in enumerate(BODY)
)
CONFIGURATIONS = {
    "choices": f"""<View>{IMAGE}
        <Choices name="choice" toName="image" model_score_threshold="0.25">
          <Choice value="Airplane" predicted_values="aircraft_carrier,airliner,airship,warplane"/>
          <Choice value="Car" predicted_values="limousine,minivan,jeep,sports_car,person"/>
        </Choices></View>""",
    "rectangle": f"""<View>{IMAGE}
        <RectangleLabels name="label" toName="image" model_score_threshold="0.25" opacity="0.1">
          <Label value="Person" background="red"/><Label value="Car" background="blue"/>
        </RectangleLabels></View>""",
    "obb": f"""<View>{IMAGE}
        <RectangleLabels name="label" toName="image" model_score_threshold="0.25" model_obb="true">
          <Label value="Person"/></RectangleLabels></View>""",
    "polygon": f"""<View>{IMAGE}
        <PolygonLabels name="label" toName="image" model_score_threshold="0.25" opacity="0.1">
          <Label value="Car" background="blue"/><Label value="Person" background="red"/>
        </PolygonLabels></View>""",
    "brush": f"""<View>{IMAGE}
        <BrushLabels name="label" toName="image"><Label value="Person"/></BrushLabels></View>""",
    "keypoints": f"""<View>
        <RectangleLabels name="keypoints_bbox" toName="image" model_skip="true">
          <Label value="person"/></RectangleLabels>
        <KeyPointLabels name="keypoints" toName="image" model_score_threshold="0.75"
          model_point_threshold="0.5" model_add_bboxes="true" model_point_size="1">
          <View>{PARTS}</View></KeyPointLabels>{IMAGE}</View>""",
    "keypoints alone": f"""<View>
        <KeyPointLabels name="keypoints" toName="image" model_score_threshold="0.75"
          model_point_threshold="0.5" model_point_size="1" model_add_bboxes="false">
          {PARTS}</KeyPointLabels>{IMAGE}</View>""",
}
POINTS = [[(20 + 2 * number, 30) for number in range(17)]]
SAYS = {
    "Boxes": boxes((10, 10, 60, 60, 0.9, 0)),
    "Masks": masks(np.ones((30, 30)), left=10, top=10),
    "OrientedBoxes": oriented((50, 50, 30, 20, 0.5, 0.9, 0)),
    "Keypoints": bodies([(10, 10, 60, 60, 0.9, 0)], POINTS),
    "Classes": classes(0.9, 0.1),
}


@pytest.mark.parametrize(
    ("name", "tasks", "types"),
    [
        ("choices", set(RESULTS), ["choices"]),
        ("rectangle", set(RESULTS) - {"classify"}, ["rectanglelabels"]),
        ("obb", {"obb"}, ["rectanglelabels"]),
        ("polygon", {"segment", "semantic"}, ["polygonlabels"]),
        ("brush", {"segment", "semantic"}, ["brushlabels"]),
        ("keypoints", {"pose"}, ["rectanglelabels", *["keypointlabels"] * 17]),
        ("keypoints alone", {"pose"}, ["keypointlabels"] * 17),
    ],
)
def test_a_documented_configuration_is_drawn_as_documented(name, tasks, types):
    text = CONFIGURATIONS[name]
    (control,) = controls.drawn(text)
    assert {task for task in RESULTS if controls.takes(control, task)} == tasks
    for task in tasks:
        found = draw(text, SAYS[RESULTS[task].__name__], 100, 100)
        assert [region["type"] for region in found] == types
        assert faults(text, found) == []


DOCS = (Path(__file__).parents[3] / "docs" / "controls.md").read_text()
OURS = re.findall(r"```xml\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("text", OURS)
def test_a_configuration_to_paste_from_the_docs_is_label_studio_s_and_is_drawn_for(text):
    LabelInterface(text).validate()
    drawn = {control.from_name for control in controls.untaken(controls.drawn(text))}
    named = {control.from_name for control in label_config.parse(text)}
    # What takes boxes, a Labels tag, a tool for clicks.
    assert named - drawn <= {"points_bbox", "label", "click"}


def test_every_control_stands_in_the_docs_table():
    for kind in controls.CONTROLS.values():
        assert f"`{kind.tag}" in DOCS
