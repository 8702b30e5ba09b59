"""The geometry between an image and a network's input: scaled, then padded, or cropped. As
ultralytics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from ls_yolo.engines.base import Prepared
from ls_yolo.engines.network import Network
from ls_yolo.results import Image

STRIDE = 32
"""Both sides of an input are multiples of it, in pixels: a YOLO network halves them five times."""
GREY = 114
"""What is padded with, 0 to 255: what the models were trained with."""
MAX_BOXES = 300
"""The most boxes of an image, as ultralytics has it by default."""
Fit = Literal["letterbox", "stretch", "crop"]
"""How an image gets into an input: whole and padded; whole and out of proportion (RT-DETR); or the
middle of it (classify)."""
GAP = 3
"""An image that is to be so many times smaller twice over is made smaller by a whole number first,
which costs a fraction and shows in no score."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an upright image lies in an input, all in pixels.

    width, height: of the image.
    inner_width, inner_height: of the image once scaled.
    left, top, right, bottom: the padding around it; below 0: so much is cut off.
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

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """Pixels of the image for a pixel of the input, across and down; shape (2,)."""
        scales = self.width / self.inner_width, self.height / self.inner_height
        return np.array(scales, np.float32)

    def points(self, xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Points of the input as points of the image, be they outside. Shape (..., 2)."""
        found: npt.NDArray[np.float32] = (xy - np.array([self.left, self.top], np.float32)) * (
            self.scale
        )
        return found

    def inside(self, xy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """As `points`, moved to the image's edges where they are outside."""
        most = np.array([self.width, self.height], np.float32)
        found: npt.NDArray[np.float32] = np.clip(self.points(xy), np.float32(0), most)
        return found

    def back(self, xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes of the input as boxes of the image, cut off at its edges. Shape (n, 4)."""
        return self.inside(xyxy.reshape(-1, 2, 2)).reshape(-1, 4)


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
    way: how an image gets into it.
    """

    imgsz: int
    stride: int = STRIDE
    channels: int = 3
    end2end: bool = False
    way: Fit = "letterbox"

    @classmethod
    def of(cls, network: Network, imgsz: int, way: Fit) -> Input:
        """What ``network`` takes, with images of ``imgsz`` pixels."""
        size = round_up(imgsz, network.stride)
        return cls(size, network.stride, network.channels, network.end2end, way)

    def prepare(
        self, image: Image, imgsz: int | None = None, size: tuple[int, int] | None = None
    ) -> Letterboxed:
        """See `Engine.prepare`."""
        width, height = size or (image.shape[1], image.shape[0])
        put = apply if self.way != "crop" else crop
        return put(image, self.fit(width, height, imgsz or self.imgsz), self.channels)

    def fit(self, width: int, height: int, imgsz: int) -> Geometry:
        """How an image of ``width`` x ``height`` pixels lies in an input of ``imgsz`` pixels."""
        if self.way != "letterbox":
            side = round_up(imgsz, self.stride)
            if self.way == "stretch":
                return Geometry(width, height, side, side, 0, 0, 0, 0)
            return middle(width, height, side)
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


def middle(width: int, height: int, side: int) -> Geometry:
    """How the middle of an image of ``width`` x ``height`` pixels fills a square of ``side``."""
    inner_width, inner_height = max(side * width // height, side), max(side * height // width, side)
    over_x, over_y = inner_width - side, inner_height - side
    left, top = round(over_x / 2), round(over_y / 2)
    return Geometry(
        width, height, inner_width, inner_height, -left, -top, left - over_x, top - over_y
    )


def apply(image: Image, geometry: Geometry, channels: int = 3) -> Letterboxed:
    """``image``, an image or a smaller copy of it, as ``geometry`` says.

    channels: 3, or 1: grey as OpenCV makes it of colours, which is what ultralytics trains with.
    """
    size = geometry.inner_width, geometry.inner_height
    image = _with(image, channels)
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


def crop(image: Image, geometry: Geometry, channels: int = 3) -> Letterboxed:
    """As `apply`, where ``geometry`` cuts off. Every pixel of ``image`` counts, as in Pillow, which
    ultralytics feeds classifiers with."""
    across, down = image.shape[1] / geometry.inner_width, image.shape[0] / geometry.inner_height
    smaller = int(min(across, down) / GAP)
    if smaller > 1:
        # Pillow would do so while all other threads wait.
        size = -(-image.shape[1] // smaller), -(-image.shape[0] // smaller)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        across, down = image.shape[1] / geometry.inner_width, image.shape[0] / geometry.inner_height
    height, width = geometry.shape
    edges = (
        -geometry.left * across,
        -geometry.top * down,
        min((width - geometry.left) * across, image.shape[1]),
        min((height - geometry.top) * down, image.shape[0]),
    )
    resized = PillowImage.fromarray(image).resize(
        (width, height), PillowImage.Resampling.BILINEAR, edges
    )
    pixels: Image = np.array(_with(np.asarray(resized), channels))  # which OpenVINO may write to
    return Letterboxed(geometry.width, geometry.height, pixels, geometry)


def _with(image: Image, channels: int) -> Image:
    """``image`` with so many channels."""
    if channels == 1:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None]  # type: ignore[return-value]
    return image


def _anchors(geometry: Geometry) -> int:
    height, width = geometry.shape
    return sum((height // step) * (width // step) for step in (8, 16, 32))
