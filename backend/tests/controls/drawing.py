"""What the tests of controls share: results made by hand, and what Label Studio says of regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from label_studio_sdk.label_interface import LabelInterface

from ls_yolo import controls
from ls_yolo.controls.base import Target
from ls_yolo.controls.clock import Clock, Footage, Tracks
from ls_yolo.labelstudio import label_config
from ls_yolo.results import Boxes, Classes, Keypoints, Mask, Masks, OrientedBoxes

NAMES = {0: "person", 1: "car"}
IMAGE = '<Image name="image" value="$image"/>'


def config(*tags: str) -> str:
    return f"<View>{IMAGE}{''.join(tags)}</View>"


def tag(kind: str, attributes: str = "", inner: str | None = None, name: str = "label") -> str:
    labels = '<Label value="person"/><Label value="car"/>' if inner is None else inner
    return f'<{kind} name="{name}" toName="image" {attributes}>{labels}</{kind}>'


def draw(text: str, result: Any, width: int, height: int, **more: Any) -> list[dict[str, Any]]:
    """The regions of ``result`` in the first control of the labeling config ``text`` that is drawn
    for, as one model on one image makes them."""
    control = controls.untaken(controls.drawn(text))[0]
    kind = controls.of(control)
    assert kind is not None
    names = more.pop("names", NAMES)
    mapped = controls.match(control, names.values()).labels
    boxes, _ = controls.boxes(control, text, mapped)
    labels, of_boxes = (
        {index: found[name] for index, name in names.items() if name in found}
        for found in (mapped, boxes or {})
    )
    target = Target(
        control, labels, names, width, height, boxes=None if boxes is None else of_boxes, **more
    )
    regions = kind.encode(target, result)
    return kind.join(control, regions) if kind.join else regions


def faults(text: str, regions: list[dict[str, Any]]) -> list[str]:
    """What Label Studio's strict checking has against ``regions``."""
    answer = {"result": regions, "score": 0.5, "model_version": "v"}
    found = LabelInterface(text).validate_prediction(answer, return_errors=True)
    assert isinstance(found, list)
    return found


def boxes(*rows: Any) -> Boxes:
    """Rows of left, top, right, bottom, score, class."""
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(array[:, :4], array[:, 4], array[:, 5].astype(np.int64))


def oriented(*rows: Any) -> OrientedBoxes:
    """Rows of centre, width, height, radians, score, class."""
    array = np.array(rows, np.float32).reshape(-1, 7)
    return OrientedBoxes(array[:, :5], array[:, 5], array[:, 6].astype(np.int64))


def masks(*found: Any, left: int = 0, top: int = 0, score: float = 0.5, index: int = 0) -> Masks:
    """Arrays of what is not 0 where an object is, each at (``left``, ``top``)."""
    made = [Mask(left, top, np.asarray(one) != 0) for one in found]
    rows = boxes(*[(0, 0, 1, 1, score, index)] * len(made))
    return Masks(rows, [lambda mask=mask: mask for mask in made])


def bodies(rows: Any, points: Any, scores: Any = None) -> Keypoints:
    """``rows`` as for `boxes`; of each a row of points (x, y), and one of their scores."""
    xy = np.array(points, np.float32).reshape(len(rows), -1, 2)
    sure = np.ones(xy.shape[:2], np.float32) if scores is None else np.array(scores, np.float32)
    return Keypoints(boxes(*rows), xy, sure)


def classes(*scores: float) -> Classes:
    return Classes(np.array(scores, np.float32))


def parsed(text: str) -> label_config.Control:
    return label_config.parse(text)[0]


def footage(frames: Sequence[int], rate: float = 24.0, length: int | None = None) -> Footage:
    """A video of which the ``frames`` were looked at."""
    numbers = np.array(frames, np.int64)
    clock = Clock(rate)
    return Footage(clock, numbers, length or frames[-1], clock.seconds(frames[-1] + 1))


def tracks(film: Footage, *rows: Any) -> Tracks:
    """Rows of which frame from 0, object, left, top, right, bottom, score, class."""
    table = np.array(sorted(rows), float).reshape(-1, 8)
    whole = np.nan_to_num(table).astype(np.int64)
    return Tracks(
        film,
        whole[:, 0],
        whole[:, 1],
        table[:, 2:6].astype(np.float32),
        table[:, 6].astype(np.float32),
        whole[:, 7],
    )
