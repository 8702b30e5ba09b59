"""The geometry between an image and a network's input: scaled, then padded. As ultralytics."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo.engines.base import Prepared
from ls_yolo.results import Image

STRIDE = 32
"""Both sides of an input are multiples of it, in pixels: a YOLO network halves them five times."""
GREY = 114
"""What is padded with, 0 to 255: what the models were trained with."""
MAX_BOXES = 300
"""The most boxes of an image, as ultralytics has it by default."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an upright image lies in an input, all in pixels.

    width, height: of the image.
    inner_width, inner_height: of the image once scaled.
    left, top, right, bottom: the padding around it.
    """

    width: int
    height: int
    inner_width: int
    inner_height: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.top + self.inner_height + self.bottom, self.left + self.inner_width + self.right

    def back(self, xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes of the input as boxes of the image, cut off at its edges. Shape (n, 4)."""
        scale_x = self.width / self.inner_width
        scale_y = self.height / self.inner_height
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([scale_x, scale_y] * 2, np.float32)
        most = np.array([self.width, self.height] * 2, np.float32)
        found: npt.NDArray[np.float32] = np.clip((xyxy - offset) * scale, np.float32(0), most)
        return found


@dataclass(frozen=True)
class Letterboxed(Prepared):
    """An input of a network.

    pixels: of the shape (*``geometry.shape``, channels), contiguous; channels as `Image` has them,
        or one: grey.
    """

    pixels: Image
    geometry: Geometry


@dataclass(frozen=True)
class Input:
    """What a network takes. Engines of the same weights have the same, so that what one prepares
    the other can predict.

    imgsz: the longest side in pixels, where `prepare` is told no other.
    stride: both sides are multiples of it, in pixels.
    channels: 3, or 1: grey.
    end2end: whether the network itself leaves no doubles.
    """

    imgsz: int
    stride: int = STRIDE
    channels: int = 3
    end2end: bool = False

    def prepare(
        self, image: Image, imgsz: int | None = None, size: tuple[int, int] | None = None
    ) -> Letterboxed:
        """See `Engine.prepare`."""
        width, height = size or (image.shape[1], image.shape[0])
        return apply(image, self.fit(width, height, imgsz or self.imgsz), self.channels)

    def fit(self, width: int, height: int, imgsz: int) -> Geometry:
        """How an image of ``width`` x ``height`` pixels lies in an input of ``imgsz`` pixels."""
        geometry = fit(width, height, imgsz, self.stride)
        if self.end2end and _anchors(geometry) < MAX_BOXES:
            # Such a network picks so many boxes itself, and OpenVINO's form of it fails where there
            # are not as many.
            return fit(width, height, imgsz, self.stride, square=True)
        return geometry


def round_up(imgsz: int, stride: int = STRIDE) -> int:
    """``imgsz`` as a multiple of ``stride``, never smaller."""
    return max(-(-imgsz // stride), 1) * stride


def fit(
    width: int, height: int, imgsz: int, stride: int = STRIDE, square: bool = False
) -> Geometry:
    """How an image of ``width`` x ``height`` pixels lies in an input.

    The longer side becomes ``imgsz`` (rounded up to a multiple of ``stride``); the shorter is
    padded on both sides to the next multiple of ``stride``, or to ``imgsz`` with ``square``.
    """
    imgsz = round_up(imgsz, stride)
    ratio = min(imgsz / height, imgsz / width)
    # The shorter side of a very thin image keeps a pixel.
    inner_width, inner_height = max(round(width * ratio), 1), max(round(height * ratio), 1)
    pad_x, pad_y = imgsz - inner_width, imgsz - inner_height
    if not square:
        pad_x, pad_y = pad_x % stride, pad_y % stride
    left, top = pad_x // 2, pad_y // 2
    return Geometry(width, height, inner_width, inner_height, left, top, pad_x - left, pad_y - top)


def apply(image: Image, geometry: Geometry, channels: int = 3) -> Letterboxed:
    """``image``, an image or a smaller copy of it, as ``geometry`` says.

    channels: 3, or 1: grey as OpenCV makes it of colours, which is what ultralytics trains with.
    """
    size = geometry.inner_width, geometry.inner_height
    if channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]  # type: ignore[assignment]
    pixels: Image = np.empty((*geometry.shape, channels), np.uint8)
    pixels[: geometry.top] = GREY
    pixels[geometry.top + geometry.inner_height :] = GREY
    rows = pixels[geometry.top : geometry.top + geometry.inner_height]
    rows[:, : geometry.left] = GREY
    rows[:, geometry.left + geometry.inner_width :] = GREY
    inner = rows[:, geometry.left : geometry.left + geometry.inner_width]
    if image.shape[1::-1] == size:
        inner[:] = image
    else:  # straight into its place: OpenCV writes into a part of an array
        cv2.resize(image, size, dst=inner, interpolation=cv2.INTER_LINEAR)
    return Letterboxed(geometry.width, geometry.height, pixels, geometry)


def _anchors(geometry: Geometry) -> int:
    height, width = geometry.shape
    return sum((height // step) * (width // step) for step in (8, 16, 32))
