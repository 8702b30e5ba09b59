"""detect: upright boxes. As ultralytics makes them of a network's output, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ls_yolo.engines import nms
from ls_yolo.engines.letterbox import MAX_BOXES, Geometry
from ls_yolo.results import Boxes


class Detect:
    """See `engines.tasks.Task`.

    An image's output has the shape (4 + classes, n): centre, width, height in pixels of the input,
    then the score of each class; with ``end2end`` the shape (n, 6): left, top, right, bottom,
    score, class, already without doubles.
    """

    def result(
        self,
        output: npt.NDArray[np.float32],
        geometry: Geometry,
        conf: float,
        iou: float,
        end2end: bool,
    ) -> Boxes:
        if end2end:
            rows = output[output[:, 4] > conf][:MAX_BOXES].astype(np.float32)
            order = np.argsort(-rows[:, 4], kind="stable")
            rows = rows[order]
            return Boxes(geometry.back(rows[:, :4]), rows[:, 4], rows[:, 5].astype(np.int64))
        found = output[4:]
        chosen = np.flatnonzero(found.max(axis=0) > conf)
        if not chosen.size:
            return nms.NONE
        candidates = found[:, chosen]
        classes = candidates.argmax(axis=0)
        scores = candidates[classes, np.arange(chosen.size)]
        return nms.kept(output[:4, chosen].T, scores, classes, geometry, iou)

    def results(
        self, output: Any, geometries: Sequence[Geometry], conf: float, iou: float, end2end: bool
    ) -> list[Boxes]:
        if end2end:
            return [
                self.result(row, geometry, conf, iou, end2end)
                for row, geometry in zip(output.float().cpu().numpy(), geometries, strict=True)
            ]
        # What can be a box is picked on the device, for all images at once: little is left.
        scores, classes = output[:, 4:].max(1)
        # Half precision would round the threshold, too.
        scores = scores.float()
        image, anchor = (scores > conf).nonzero(as_tuple=True)
        xywh = output[:, :4].transpose(1, 2)[image, anchor].float().cpu().numpy()
        chosen = scores[image, anchor].cpu().numpy()
        kinds = classes[image, anchor].cpu().numpy()
        edges = np.searchsorted(image.cpu().numpy(), np.arange(len(geometries) + 1))
        return [
            nms.kept(xywh[a:b], chosen[a:b], kinds[a:b], geometry, iou)
            for a, b, geometry in zip(edges[:-1], edges[1:], geometries, strict=True)
        ]
