"""VideoRectangle: a region for each object that is followed through a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.controls.base import ControlType, Region, Target, upright
from ls_yolo.controls.clock import Footage, Tracks
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Keypoints, Masks

WITHIN = 1.0
"""How far, in pixels, an edge may be from where it was seen on frames between two keyframes."""
FAINT = 0.1
"""The lowest score of what is followed where the control does not say: an object that is sure once
stays the same one while it is hardly seen."""


def shown(control: Control, default: float) -> float:
    """What the highest score of an object must exceed for a region, 0 to 1."""
    for found in (control.score_threshold, control.number("model_conf", 0, 1)):
        if found is not None:
            return found
    return default


def followed(control: Control, default: float) -> float:
    """What the score of a box must exceed to be followed (``model_conf``), 0 to 1."""
    found = control.number("model_conf", 0, 1)
    return min(FAINT, shown(control, default)) if found is None else found


def regions(target: Target, result: Tracks) -> list[Region]:
    """A region for each object that has a label and was sure enough once, in the order of first
    sight.

    An object whose class changes has the label that its scores speak for. Between two keyframes
    Label Studio draws on a straight line; the keyframes are those that this needs. It draws an
    object until a keyframe that is not ``enabled``, and there is one after each last sight.
    https://labelstud.io/tags/videorectangle
    """
    lowest = shown(target.control, target.lowest)
    found = []
    for number in dict.fromkeys(result.ids.tolist()):
        rows = np.flatnonzero(result.ids == number)
        scores = result.scores[rows]
        label = _label(target, result.classes[rows].tolist(), scores.tolist())
        sequence = _sequence(target, result, rows) if label and scores.max() > lowest else []
        if sequence:
            found.append(
                {
                    "from_name": target.control.from_name,
                    "to_name": target.control.to_name,
                    "type": "videorectangle",
                    "score": min(float(scores.max()), 1.0),
                    "value": {
                        "framesCount": result.footage.length,
                        "duration": result.footage.duration,
                        "sequence": sequence,
                        "labels": [label],
                    },
                }
            )
    return found


def _label(target: Target, classes: list[int], scores: list[float]) -> str | None:
    """The label of the highest sum of scores; None where classes without one have more."""
    sums: dict[str | None, float] = {}
    for index, score in zip(classes, scores, strict=True):
        label = target.labels.get(index)
        sums[label] = sums.get(label, 0.0) + score
    return max(sums, key=lambda label: sums[label])


def _sequence(target: Target, result: Tracks, rows: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """The keyframes of the object that is seen in ``rows``."""
    size = np.array([target.width, target.height] * 2)
    edges = np.clip(result.xyxy[rows].astype(float), 0, size)
    # NaN, which compares false with everything, is left out too.
    inside = (edges[:, 2] > edges[:, 0]) & (edges[:, 3] > edges[:, 1])
    at, edges = result.at[rows][inside], edges[inside]
    footage = result.footage
    found: list[dict[str, Any]] = []
    breaks = np.flatnonzero(np.diff(at) > 1) + 1
    for span, places in zip(np.split(at, breaks), np.split(edges, breaks), strict=True):
        if not len(span):
            continue
        frames = footage.frames[span]
        keep = keyframes(frames, places)
        boxes = [upright(target, place) or {} for place in places[keep].tolist()]
        found += [
            _keyframe(footage, frame, box)
            for frame, box in zip(frames[keep].tolist(), boxes, strict=True)
        ]
        if span[-1] + 1 < len(footage.frames):
            found.append(_keyframe(footage, int(frames[-1]) + 1, boxes[-1], enabled=False))
    return found


def _keyframe(
    footage: Footage, frame: int, box: Mapping[str, float], enabled: bool = True
) -> dict[str, Any]:
    return {"frame": frame, "enabled": enabled, "time": footage.clock.seconds(frame), **box}


def keyframes(
    frames: npt.NDArray[np.int64], places: npt.NDArray[np.float64], within: float = WITHIN
) -> list[int]:
    """Which of the ``places``, from 0, are enough: on straight lines between them every other one
    is met to within ``within``. The first and the last are among them.

    frames: shape (n,), rising. places: shape (n, k), k numbers each. n is 1 or more.
    """
    keep = {0, len(frames) - 1}
    spans = [(0, len(frames) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        part = (frames[first : last + 1] - frames[first]) / (frames[last] - frames[first])
        line = places[first] + part[:, None] * (places[last] - places[first])
        off = np.abs(places[first : last + 1] - line).max(axis=1)
        if off.max() > within:
            middle = first + int(off.argmax())
            keep.add(middle)
            spans += [(first, middle), (middle, last)]
    return sorted(keep)


def _draws(control: Control) -> tuple[type, ...]:
    return (Boxes, Masks, Keypoints) if control.labels_from else ()


def _check(control: Control) -> None:
    followed(control, 0)
    control.number("model_iou", 0, 1)


CONTROL = ControlType("VideoRectangle", "Video", _draws, regions, check=_check)
"""The labels are those of a Labels tag on the same Video."""
