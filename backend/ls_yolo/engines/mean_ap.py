"""How well the results of one model agree with another's, by the metric of their task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from ls_yolo.results import Boxes, Classes, Keypoints, Masks, OrientedBoxes, Result

METRICS = {
    Boxes: "mAP",
    Masks: "mask mAP",
    OrientedBoxes: "mAP of turned boxes",
    Keypoints: "OKS mAP",
    Classes: "top-1",
}
"""The metric of each result type, for people."""
PERSON = 17
"""COCO's people have so many key points, each with a spread of its own."""
SPREAD = 0.05
"""That of the points of anything else, as a part of its size: of a person's, the middle ones have
it. What ultralytics takes, one part in the number of points, hardly tells few points apart."""
OBJECT = 0.53
"""The part of its box that an object with key points covers, as ultralytics has it for OKS."""


def agreement(truth: Sequence[Result], found: Sequence[Result]) -> float:
    """How well ``found`` agrees with ``truth``, 0 to 1, by `METRICS`; both have a result of the
    same type for each image."""
    if not truth or not isinstance(truth[0], Classes):
        return mean_average_precision(truth, found)
    same = [
        int(one.scores.argmax()) == int(other.scores.argmax())
        for one, other in zip(truth, found, strict=True)
        if isinstance(one, Classes) and isinstance(other, Classes)
    ]
    return sum(same) / len(same)


def objects(result: Result) -> Boxes:
    """The upright boxes of the objects in ``result``; of a whole image's classes none."""
    if isinstance(result, Boxes):
        return result
    if isinstance(result, (Masks, Keypoints)):
        return result.boxes
    if isinstance(result, Classes):
        return Boxes.none()
    corners = _corners(result)
    return Boxes(
        np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1),
        result.scores,
        result.classes,
    )


def mean_average_precision(truth: Sequence[Result], found: Sequence[Result]) -> float:
    """mAP50-95 as COCO has it, 0 to 1, over all classes of ``truth``; 1 where that has no object.

    Two objects overlap as their boxes do, as their masks or their turned boxes do pixel by pixel,
    or as their key points do by OKS. Both have a result of the same type for each image. Scores of
    ``truth`` do not count, those of ``found`` rank.
    """
    from faster_coco_eval import (  # type: ignore[import-untyped,unused-ignore]
        COCO,
        COCOeval_faster,
    )

    boxes = [[objects(result) for result in results] for results in (truth, found)]
    classes = sorted({int(index) for of_one in boxes[0] for index in of_one.classes})
    if not classes:
        return 1.0
    # Masks are compared in images as large as what lies in them.
    sizes = [
        np.ceil(np.concatenate([one.xyxy, other.xyxy, np.ones((1, 4))]).max(axis=0)[2:] + 2)
        for one, other in zip(*boxes, strict=True)
    ]
    rows = _rows(found, sizes)
    if not rows:
        return 0.0
    true = COCO(
        {
            "images": [
                {"id": number, "width": int(width), "height": int(height)}
                for number, (width, height) in enumerate(sizes)
            ],
            "categories": [{"id": index, "name": str(index)} for index in classes],
            "annotations": _rows(truth, sizes),
        }
    )
    kind, more = "bbox", {}
    if isinstance(truth[0], (Masks, OrientedBoxes)):
        kind = "segm"
    elif isinstance(truth[0], Keypoints):
        kind, count = "keypoints", truth[0].xy.shape[1]
        more = {} if count == PERSON else {"kpt_oks_sigmas": np.full(count, SPREAD)}
    judged = COCOeval_faster(true, true.loadRes(rows), kind, print_function=lambda *_: None, **more)
    # However many objects an image has, all count.
    most = max(len(of_one.scores) for results in boxes for of_one in results)
    judged.params.maxDets = [most]
    judged.params.catIds = classes
    judged.evaluate()
    judged.accumulate()
    # Of overlap, recall, class, area (all, small, ...) and the most boxes; -1 where there is none.
    precision = judged.eval["precision"][:, :, :, 0, -1]
    return float(np.mean(precision[precision > -1]))


def _rows(images: Sequence[Result], sizes: Sequence[Any]) -> list[dict[str, Any]]:
    """The objects of ``images``, of so many pixels (width, height), as COCO's annotations."""
    rows: list[dict[str, Any]] = []
    for number, (result, size) in enumerate(zip(images, sizes, strict=True)):
        boxes = objects(result)
        corners = boxes.xyxy.astype(np.float64)
        sides = corners[:, 2:] - corners[:, :2]
        for (left, top), (width, height), score, index, more in zip(
            corners[:, :2].tolist(),
            sides.tolist(),
            boxes.scores.tolist(),
            boxes.classes.tolist(),
            _shapes(result, size),
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
                    **more,
                }
            )
    return rows


def _shapes(result: Result, size: Any) -> Iterator[dict[str, Any]]:
    """What there is of each object besides its box."""
    width, height = (int(side) for side in size)
    if isinstance(result, Masks):
        for make in result.masks:
            mask, whole = make(), np.zeros((height, width), np.uint8)
            rows, columns = mask.pixels.shape
            part = whole[mask.top : mask.top + rows, mask.left : mask.left + columns]
            part[:] = mask.pixels[: part.shape[0], : part.shape[1]]
            yield {"segmentation": _encoded(whole)}
    elif isinstance(result, OrientedBoxes):
        for corners in _corners(result):
            whole = np.zeros((height, width), np.uint8)
            # Sixteenths of a pixel, so that an angle shows.
            cv2.fillPoly(whole, [np.round((corners - 0.5) * 16).astype(np.int32)], 1, shift=4)
            yield {"segmentation": _encoded(whole)}
    elif isinstance(result, Keypoints):
        for box, points in zip(result.boxes.xyxy.tolist(), result.xy, strict=True):
            seen = np.full((len(points), 1), 2.0)
            yield {
                "keypoints": np.concatenate([points, seen], axis=1).ravel().tolist(),
                "num_keypoints": len(points),
                "area": (box[2] - box[0]) * (box[3] - box[1]) * OBJECT,
            }
    else:
        yield from ({} for _ in range(len(objects(result).scores)))


def _encoded(mask: Any) -> Any:
    from faster_coco_eval import mask as coco  # type: ignore[import-untyped,unused-ignore]

    return coco.encode(np.asfortranarray(mask))


def _corners(boxes: OrientedBoxes) -> Any:
    """Shape (n, 4, 2), in pixels."""
    x, y, width, height, angle = boxes.xywhr.T[..., None]
    along = np.array([-1, 1, 1, -1]) * width / 2
    across = np.array([-1, -1, 1, 1]) * height / 2
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.stack([x + along * cosine - across * sine, y + along * sine + across * cosine], 2)
