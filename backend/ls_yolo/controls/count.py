"""What Number and Rating have in common: how many objects there are."""

from __future__ import annotations

from ls_yolo.controls.base import Region, Target, answer
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Boxes, Keypoints, Masks, Objects, OrientedBoxes

DRAWN = (Boxes, Masks, OrientedBoxes, Keypoints)


def draws(control: Control) -> tuple[type, ...]:
    """Nothing, unless ``model_count`` says what to count."""
    return DRAWN if control.labels else ()


def regions(target: Target, result: Objects) -> list[Region]:
    """How many objects of the classes in ``model_count`` there are; their mean score."""
    boxes = result.boxes
    rows = zip(boxes.classes.tolist(), boxes.scores.tolist(), strict=True)
    scores = [score for index, score in rows if index in target.labels]
    mean = min(sum(scores) / len(scores), 1.0) if scores else None
    return [answer(target.control, len(scores), mean)]


def joined(control: Control, regions: list[Region], low: float, high: float) -> list[Region]:
    """One region with the sum of ``regions``, at least ``low`` and at most ``high``."""
    if not regions:
        return []
    kind = control.tag.lower()
    counts = [region["value"][kind] for region in regions]
    total = sum(counts)
    weighed = (
        region.get("score", 0.0) * count for region, count in zip(regions, counts, strict=True)
    )
    score = sum(weighed) / total if total else None
    number = min(max(total, low), high)
    whole = int(number) if number == int(number) else number
    return [{**regions[0], **answer(control, whole, score)}]
