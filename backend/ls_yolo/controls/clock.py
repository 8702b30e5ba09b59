"""Label Studio's clock of a video, and what a model has said of the frames of one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.labelstudio.label_config import Control
from ls_yolo.labelstudio.values import resolve

RATE = 24.0
"""Frames a second where the Video tag does not say."""
ROUNDED = 0.0006
"""Files that keep times in milliseconds round them: a frame that is up to so many seconds early is
still the one that is meant."""


def frame_rate(control: Control, data: Any) -> float:
    """Frames a second of the Video tag that ``control`` is on, in the task whose data is ``data``,
    as Label Studio's page takes it: what is below 1 is the seconds of a frame."""
    found = resolve(control.object_attributes.get("framerate", "").strip(), data)
    try:
        rate = float(found)
    except (TypeError, ValueError):
        return RATE
    if not math.isfinite(rate) or rate <= 0:
        return RATE
    return 1 / rate if rate < 1 else rate


@dataclass(frozen=True)
class Clock:
    """Frame n, from 1, is the one that is shown at (n - 1) / ``rate`` seconds, whatever rate the
    file has."""

    rate: float = RATE

    def frame(self, seconds: float) -> int:
        """The number of the frame that is shown at ``seconds``, from 1."""
        return max(math.floor((seconds + ROUNDED) * self.rate), 0) + 1

    def seconds(self, frame: int) -> float:
        """When the frame number ``frame`` is shown."""
        return (frame - 1) / self.rate


@dataclass(frozen=True, slots=True)
class Footage:
    """Which frames of a video were looked at.

    clock: Label Studio's.
    frames: int64, shape (f,): their numbers by the clock, each greater than the one before.
    length: how many frames the video has by the clock; not less than the last of ``frames``.
    duration: of the video, in seconds.
    """

    clock: Clock
    frames: npt.NDArray[np.int64]
    length: int
    duration: float


@dataclass(frozen=True, slots=True)
class Tracks:
    """Objects followed through a video: s sights of them, in the order of frames.

    footage: the frames.
    at: int64, shape (s,): which of the footage's frames, from 0.
    ids: int64, shape (s,): which object.
    xyxy: float32, shape (s, 4): left, top, right, bottom in pixels of the upright frame.
    scores: float32, shape (s,): 0 to 1.
    classes: int64, shape (s,): class indices of the model.
    """

    footage: Footage
    at: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Moments:
    """What each frame of a video is taken for as a whole.

    footage: the frames.
    classes: int64, shape (c,): class indices of the model, each once.
    scores: float32, shape (f, c): of these classes, 0 to 1.
    """

    footage: Footage
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]
