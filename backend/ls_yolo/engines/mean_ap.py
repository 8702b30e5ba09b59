"""How well the boxes of one model agree with another's: mean average precision, as COCO has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ls_yolo.results import Boxes


def mean_average_precision(truth: Sequence[Boxes], found: Sequence[Boxes]) -> float:
    """mAP50-95, 0 to 1, over all classes of ``truth``; 1 where ``truth`` has no box.

    Both have an item for each image. Scores of ``truth`` do not count, those of ``found`` rank.
    """
    from faster_coco_eval import (  # type: ignore[import-untyped,unused-ignore]
        COCO,
        COCOeval_faster,
    )

    classes = sorted({int(index) for boxes in truth for index in boxes.classes})
    if not classes:
        return 1.0
    rows = _rows(found)
    if not rows:
        return 0.0
    true = COCO(
        {
            "images": [{"id": number} for number in range(len(truth))],
            "categories": [{"id": index, "name": str(index)} for index in classes],
            "annotations": _rows(truth),
        }
    )
    judged = COCOeval_faster(true, true.loadRes(rows), "bbox", print_function=lambda *_: None)
    # However many boxes an image has, all count.
    judged.params.maxDets = [max(len(boxes.scores) for boxes in (*truth, *found))]
    judged.params.catIds = classes
    judged.evaluate()
    judged.accumulate()
    # Of overlap, recall, class, area (all, small, ...) and the most boxes; -1 where there is none.
    precision = judged.eval["precision"][:, :, :, 0, -1]
    return float(np.mean(precision[precision > -1]))


def _rows(images: Sequence[Boxes]) -> list[dict[str, Any]]:
    """The boxes of ``images`` as COCO's annotations: left, top, width, height."""
    rows: list[dict[str, Any]] = []
    for number, boxes in enumerate(images):
        corners = boxes.xyxy.astype(np.float64)
        sides = corners[:, 2:] - corners[:, :2]
        for (left, top), (width, height), score, index in zip(
            corners[:, :2].tolist(),
            sides.tolist(),
            boxes.scores.tolist(),
            boxes.classes.tolist(),
            strict=True,
        ):
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": index,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": score,
                }
            )
    return rows
