"""Runs in the backend's image: what is followed through a clip there, as JSON.

See test_tracking.py. /models and /images are mounted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
from ultralytics import YOLO

from ls_yolo.controls.clock import Clock, Tracks
from ls_yolo.engines.torch_engine import TorchEngine
from ls_yolo.images.video import Video
from ls_yolo.labelstudio import label_config
from ls_yolo.results import Boxes
from ls_yolo.serving import tracking, video
from ls_yolo.serving.batcher import Batcher
from ls_yolo.serving.loading import Model

WEIGHTS, CLIP = Path("/models/yolov8n.pt"), Path("/tmp/clip.mp4")
RATE, FRAMES, WIDTH, HEIGHT = 24, 24, 640, 480
CONF, IOU = 0.1, 0.7


def tracker(kind: str) -> tracking.Tracker:
    """As a VideoRectangle asks for it that says no more than its name."""
    found = label_config.parse(
        f'<View><Video name="v" value="$v"/><VideoRectangle name="b" toName="v" '
        f'model_tracker="{kind}"/></View>'
    )
    return tracking.make(tracking.parameters(found[0], WEIGHTS.parent, tracking.built_in()))


def crossing(kind: str) -> list[list[int]]:
    """The ids, frame by frame, of two objects that pass each other at a distance."""
    found, blank = [], np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    following = tracker(kind)
    for frame in range(20):
        x = 20.0 + 10 * frame
        places = [[x, 50, x + 60, 130], [500 - x, 250, 560 - x, 330]]
        scores = np.array([0.9, 0.8], np.float32)
        boxes = Boxes(np.array(places, np.float32), scores, np.array([0, 0]))
        seen = following.update(boxes, blank)
        order = np.argsort(seen.boxes.xyxy[:, 1])  # the upper one first
        found.append(seen.ids[order].tolist())
    return found


def write_clip() -> None:
    """An image that the camera moves across."""
    image = cv2.resize(cast(Any, cv2.imread("/images/bus.jpg")), None, fx=0.8, fy=0.8)
    file = cv2.VideoWriter(str(CLIP), cv2.VideoWriter.fourcc(*"mp4v"), RATE, (WIDTH, HEIGHT))
    for frame in range(FRAMES):
        top = 250 + 5 * frame
        file.write(np.ascontiguousarray(image[top : top + HEIGHT, :WIDTH]))
    file.release()


def here(kind: str) -> Sequence[Any]:
    """[frame, id, box in pixels] of what is followed through the clip."""
    batcher = Batcher(TorchEngine(WEIGHTS, "cpu", precision="f32"))
    model = cast(
        Model, SimpleNamespace(version="m", entry=SimpleNamespace(imgsz=None), batcher=batcher)
    )
    run = video.Run(model, CONF, IOU, video.Tracking(tracker(kind)))
    with Video(CLIP, "the clip") as file:
        (found,) = video.watch(
            file, "the clip", Clock(RATE), [run], video.Budget(1e9), lambda future: future.result()
        )
    batcher.release()
    assert isinstance(found, Tracks)
    # ultralytics cuts boxes at the edges; here that is done as they are drawn.
    boxes = np.clip(found.xyxy, 0, [WIDTH, HEIGHT] * 2)
    return list(zip(found.at.tolist(), found.ids.tolist(), boxes.tolist(), strict=True))


def direct(kind: str) -> Sequence[Any]:
    """The same, by ultralytics alone."""
    found: list[Any] = []
    model = YOLO(WEIGHTS)
    options = {"conf": CONF, "iou": IOU, "device": "cpu", "verbose": False}
    for frame, result in enumerate(model.track(CLIP, True, tracker=f"{kind}.yaml", **options)):
        if result.boxes.is_track:
            ids, boxes = result.boxes.id.int().tolist(), result.boxes.xyxy.tolist()
            found += [(frame, number, box) for number, box in zip(ids, boxes, strict=True)]
    return found


write_clip()
print(
    "ANSWER",
    json.dumps(
        {
            "crossing": {kind: crossing(kind) for kind in tracking.TYPES},
            "here": {kind: here(kind) for kind in ("botsort", "bytetrack")},
            "direct": {kind: direct(kind) for kind in ("botsort", "bytetrack")},
        }
    ),
)
