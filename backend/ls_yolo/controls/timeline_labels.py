"""TimelineLabels: when in a video something is to be seen."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ls_yolo.controls.base import ControlType, Region, Target
from ls_yolo.controls.clock import Moments
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Classes


def regions(target: Target, result: Moments) -> list[Region]:
    """A region for each time that a label's class has a score above the threshold, by their starts.

    Of several classes of a label the highest counts. A region's range has the first and the last of
    its frames; its score is the mean of theirs.
    https://labelstud.io/tags/timelinelabels
    """
    footage = result.footage
    # Where each frame that was looked at gives way to the next.
    ends = [*(footage.frames[1:] - 1).tolist(), footage.length]
    found: list[Region] = []
    for label in dict.fromkeys(target.labels.values()):
        classes = [index for index, name in target.labels.items() if name == label]
        scores = result.scores[:, np.isin(result.classes, classes)].max(axis=1, initial=0.0)
        above = np.concatenate([[False], scores > target.lowest, [False]])
        turns = np.flatnonzero(above[1:] != above[:-1]).tolist()
        for first, past in list(pairwise(turns))[::2]:
            start, end = int(footage.frames[first]), ends[past - 1]
            found.append(
                {
                    "from_name": target.control.from_name,
                    "to_name": target.control.to_name,
                    "type": "timelinelabels",
                    "score": min(float(scores[first:past].mean()), 1.0),
                    "value": {
                        "ranges": [{"start": start, "end": end}],
                        "timelinelabels": [label],
                    },
                }
            )
    return sorted(found, key=lambda region: region["value"]["ranges"][0]["start"])


def _draws(control: Control) -> tuple[type, ...]:
    # What is learned from a project's own annotations is not what a model's classes say.
    return () if control.flag("model_trainable") else (Classes,)


CONTROL = ControlType("TimelineLabels", "Video", _draws, regions)
