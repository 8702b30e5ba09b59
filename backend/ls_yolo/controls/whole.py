"""What Choices and Taxonomy have in common: labels for an image as a whole."""

from __future__ import annotations

from typing import Any

from ls_yolo.controls.base import Region, Target, answer, highest
from ls_yolo.labelstudio.label_config import Control
from ls_yolo.results import Result


def regions(target: Target, result: Result) -> list[Region]:
    """A region for each label whose class's score, or that of the surest object of its classes,
    exceeds the threshold; surest first."""
    found: dict[str, float] = {}
    for index, score in highest(result).items():
        label = target.labels.get(index)
        if label is not None and score > max(target.lowest, found.get(label, 0.0)):
            found[label] = score
    stored = {label.value: list(label.path) or label.value for label in target.control.labels}
    return [
        answer(target.control, [stored[label]], min(score, 1.0))
        for label, score in sorted(found.items(), key=lambda item: -item[1])
    ]


def joined(control: Control, regions: list[Region], most: int | None) -> list[Region]:
    """One region with the ``most`` surest of the labels in ``regions``; None: all of them."""
    kind = control.tag.lower()
    rows: list[tuple[Any, float]] = []
    for region in sorted(regions, key=lambda region: -region["score"]):
        (value,) = region["value"][kind]
        if value not in [known for known, _ in rows]:
            rows.append((value, region["score"]))
    rows = rows[:most]
    if not rows:
        return []
    score = sum(score for _, score in rows) / len(rows)
    return [{**regions[0], **answer(control, [value for value, _ in rows], score)}]
