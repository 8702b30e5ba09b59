"""Frames of a video as pictures, with what is predicted drawn on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ls_yolo.controls.clock import Clock, frame_rate
from ls_yolo.images.video import Video
from ls_yolo.labelstudio import label_config
from ls_yolo.serving import debug_plot
from ls_yolo.serving.planning import ControlBinding
from ls_yolo.serving.reading import ImageReader

Region = Mapping[str, Any]
MOST = 4
"""Pictures of a video at most."""
PLACE = "x", "y", "width", "height", "rotation"


def of_task(
    task: Mapping[str, Any],
    bindings: Sequence[ControlBinding],
    reader: ImageReader,
    regions: Sequence[Region],
    longest: int,
) -> list[tuple[str, bytes]]:
    """Frames of the videos of ``task``, on which ``bindings`` have drawn ``regions``: which, and a
    JPEG of it; none for what has no video. ``longest``: their longer side at most, in pixels.

    Raises:
        MediaError, StudioError: a video cannot be had.
    """
    videos: dict[tuple[str, float], set[str]] = {}
    for control in (binding.control for binding in bindings):
        for shown in label_config.shown(control, task.get("data")) if control.of_video else ():
            if shown.url:
                place = shown.url, frame_rate(shown.control, task.get("data"))
                videos.setdefault(place, set()).add(shown.control.to_name)
    found: list[tuple[str, bytes]] = []
    for (url, rate), names in videos.items():
        here = [region for region in regions if region["to_name"] in names]
        with reader.opened(task, url) as path, Video(path, url) as video:
            found += pictures(video, Clock(rate), here, longest)
    return found


def pictures(
    video: Video, clock: Clock, regions: Sequence[Region], longest: int
) -> list[tuple[str, bytes]]:
    """Frames of ``video`` on which something is, else any, in order; see `of_task`."""
    length = max(clock.frame(video.duration) - 1, 1)
    wanted = spread(sorted(seen(regions, length)) or range(1, length + 1), MOST)
    found = []
    for number, image in _frames(video, clock, wanted):
        here = [shown for region in regions if (shown := at(region, number))]
        sides = {"original_width": video.width, "original_height": video.height}
        rows = debug_plot.rows([{**sides, **region} for region in here])
        found.append((f"frame {number}", debug_plot.picture(image, rows, longest)))
    return found


def _frames(video: Video, clock: Clock, numbers: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """The first frames that are not before each of ``numbers``, which rise, with their own."""
    left = list(numbers)
    # Once nothing is left the rest of the file is not read.
    for frame in video.frames(lambda seconds: bool(left) and clock.frame(seconds) >= left[0]):
        number = clock.frame(frame.seconds)
        while left and left[0] <= number:
            left.pop(0)
        yield number, frame.image
        if not left:
            return


def spread(items: Sequence[int], most: int) -> list[int]:
    """``most`` of ``items`` at most, the first and the last among them, evenly apart."""
    places = np.linspace(0, len(items) - 1, min(len(items), most)).round()
    return [items[int(place)] for place in places]


def seen(regions: Sequence[Region], length: int) -> set[int]:
    """The numbers of the frames on which a region of ``regions`` is; ``length``: of the video."""
    found: set[int] = set()
    for region in regions:
        for span in region["value"].get("ranges", ()):
            found.update(range(span["start"], span["end"] + 1))
        sequence = region["value"].get("sequence", [])
        for key, after in pairwise([*sequence, {"frame": length + 1}]):
            found.update(range(key["frame"], after["frame"]) if key["enabled"] else ())
    return found


def at(region: Region, frame: int) -> Region | None:
    """What the frame number ``frame`` of a video shows of ``region``: a rectangle of an object, on
    the straight line between two keyframes; the region of a time as it is; else None."""
    value = region["value"]
    if "ranges" in value:
        now = any(span["start"] <= frame <= span["end"] for span in value["ranges"])
        return region if now else None
    before = [key for key in value["sequence"] if key["frame"] <= frame]
    after = [key for key in value["sequence"] if key["frame"] > frame]
    if not before or not before[-1]["enabled"]:
        return None
    first, last = before[-1], (after or before)[0 if after else -1]
    part = (frame - first["frame"]) / max(last["frame"] - first["frame"], 1)
    place = {key: first[key] + (last[key] - first[key]) * part for key in PLACE}
    labels = {"rectanglelabels": value["labels"]}
    return {**region, "type": "rectanglelabels", "value": {**place, **labels}}
