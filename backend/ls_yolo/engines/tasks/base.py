"""What a task is, and what those have in common that find objects with boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ls_yolo.engines import nms
from ls_yolo.engines.letterbox import MAX_BOXES, Fit, Geometry
from ls_yolo.engines.network import Network
from ls_yolo.results import Result

Floats = npt.NDArray[np.float32]


class Task(Protocol):
    """From a network's outputs to results.

    conf, iou: see `engines.base.Engine.predict`.
    """

    way: Fit
    """How images get into the network."""

    def result(
        self, outputs: Sequence[Floats], geometry: Geometry, conf: float, iou: float
    ) -> Result:
        """That of one image. outputs: what the network says of it; they may be overwritten once
        this has returned."""

    def results(
        self, outputs: Sequence[Any], geometries: Sequence[Geometry], conf: float, iou: float
    ) -> Sequence[Result]:
        """Those of a batch. outputs: tensors of torch, on whatever device, an item an image."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be an object of an image.

    boxes: shape (n, 4), as the network has them. scores, classes: shape (n,).
    more: shape (n, k), what the network says of each besides.
    """

    boxes: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    more: Floats

    def __getitem__(self, index: npt.NDArray[Any] | slice) -> Candidates:
        return Candidates(
            self.boxes[index], self.scores[index], self.classes[index], self.more[index]
        )


class Objects(ABC):
    """A task whose network finds objects; see `Task`.

    The first output has for an image the shape (4 + classes + k, n): centre, width, height in
    pixels of the input, the score of each class, k values more. Of a network that leaves no doubles
    itself it has the shape (n, 6 + k): left, top, right, bottom, score, class, k values more.
    """

    way: Fit = "letterbox"

    def __init__(self, network: Network) -> None:
        self._end2end = network.end2end
        self._points = network.keypoints

    @abstractmethod
    def _more(self, outputs: Sequence[Any]) -> int:
        """How many values more there are of each object. outputs: each with the batch's axis."""

    @abstractmethod
    def _made(
        self, found: Candidates, second: Callable[[], Floats], geometry: Geometry, iou: float
    ) -> Result:
        """The result of an image. second: makes the copy of its second output."""

    def result(
        self, outputs: Sequence[Floats], geometry: Geometry, conf: float, iou: float
    ) -> Result:
        more = self._more([output[None] for output in outputs])
        output = outputs[0]
        if self._end2end:
            found = _rows(output, conf)
        else:
            end = len(output) - more
            chosen = np.flatnonzero(output[4:end].max(axis=0) > conf)
            scored = output[4:end, chosen]
            classes = scored.argmax(axis=0)
            scores = scored[classes, np.arange(chosen.size)]
            found = Candidates(output[:4, chosen].T, scores, classes, output[end:, chosen].T)
        return self._made(found, lambda: outputs[1].copy(), geometry, iou)

    def results(
        self, outputs: Sequence[Any], geometries: Sequence[Geometry], conf: float, iou: float
    ) -> list[Result]:
        def second(number: int) -> Floats:
            copy: Floats = outputs[1][number].float().cpu().numpy().copy()
            return copy

        found = self._picked(outputs, len(geometries), conf)
        return [
            self._made(of_one, lambda number=number: second(number), geometry, iou)  # type: ignore[misc]
            for number, (of_one, geometry) in enumerate(zip(found, geometries, strict=True))
        ]

    def _picked(self, outputs: Sequence[Any], count: int, conf: float) -> list[Candidates]:
        output = outputs[0]
        if self._end2end:
            return [_rows(rows, conf) for rows in output.float().cpu().numpy()]
        end = output.shape[1] - self._more(outputs)
        # What can be a box is picked on the device, for all images at once: little is left.
        scores, classes = output[:, 4:end].max(1)
        # Half precision would round the threshold, too.
        scores = scores.float()
        image, anchor = (scores > conf).nonzero(as_tuple=True)
        found = Candidates(
            output[:, :4].transpose(1, 2)[image, anchor].float().cpu().numpy(),
            scores[image, anchor].cpu().numpy(),
            classes[image, anchor].cpu().numpy(),
            output[:, end:].transpose(1, 2)[image, anchor].float().cpu().numpy(),
        )
        edges = np.searchsorted(image.cpu().numpy(), np.arange(count + 1)).tolist()
        return [found[a:b] for a, b in pairwise(edges)]

    def _kept(self, found: Candidates, iou: float) -> tuple[Candidates, Floats]:
        """What is left without doubles, best first, and left, top, right and bottom of each in
        pixels of the input, shape (n, 4)."""
        if self._end2end:
            return found, found.boxes
        half = found.boxes[:, 2:] / np.float32(2)
        xyxy = np.concatenate([found.boxes[:, :2] - half, found.boxes[:, :2] + half], axis=1)
        keep = nms.upright(xyxy, found.scores, found.classes, iou)
        return found[keep], xyxy[keep]


def _rows(rows: Floats, conf: float) -> Candidates:
    """The objects of a network that leaves no doubles, best first."""
    rows = rows[rows[:, 4] > conf][:MAX_BOXES].astype(np.float32)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    return Candidates(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64), rows[:, 6:])
