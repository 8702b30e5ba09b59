"""Bytes to an upright image."""

from __future__ import annotations

import contextlib
import io
import logging
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from ls_yolo.images.limits import MAX_PIXELS, MEMORY, MORE_BYTES, PIXEL_BYTES, MediaError
from ls_yolo.results import Image

log = logging.getLogger(__name__)

SPARE = 3
"""An image is decoded at no fewer than this many times the pixels, a side, that the network
needs. On clean images yolov8n's boxes moved by 0.37 per cent of the image at most, with 2 by
up to 1.3; on noisy ones by up to 2.2."""
OVERHANG = 0.001
"""By what part of a side the last pixel of a smaller copy may reach over the image's edge."""
STRIP = 1 << 18
"""About how many pixels are brought to three channels at a time."""
# What OpenCV decodes; the rest is Pillow's: of GIF OpenCV does not know every kind of frame. None
# is what Pillow does not know.
_BY_OPENCV = frozenset({"JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "SUN", None})
_JPEG = frozenset({"JPEG", "MPO"})
# Measured: Chromium heeds EXIF in these alone, not in WebP; of PNG what stands before the pixels,
# of AVIF the format's own rotation, which Pillow gives as EXIF. TIFF, which it does not show, both
# libraries turn themselves.
_TURNED = _JPEG | {"PNG", "AVIF"}
# Measured: of these, cut off, Chromium shows what is there; of WebP and AVIF nothing.
_PARTLY_SHOWN = _JPEG | {"PNG", "GIF", "BMP", "DIB"}
_END_OF_JPEG = b"\xff\xd9"
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    1: lambda image: image,
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def decode(data: bytes, header: Header | None = None, name: str = "an image") -> Image:
    """The upright image in ``data``, as the browser shows it.

    EXIF rotation is applied where Chromium applies it, what is transparent is white, 16 bits are
    scaled to 8, and of an animation it is the first frame. Of a JPEG, PNG, GIF or BMP that is cut
    off it is what is there, the rest in one colour, and the log warns.

    Args:
        data: the whole file.
        header: what `read_header` found, where that is known.
        name: what the log calls the image.

    Returns:
        Height x width x 3 values from 0 to 255, in the order blue, green, red.

    Raises:
        MediaError: the data is no image, is damaged so that the browser shows nothing of it, or
            has more than `MAX_PIXELS` pixels.
    """
    return _decode(data, header or read_header(data), 1, name)


def decode_near(
    data: bytes, longest: int, header: Header | None = None, name: str = "an image"
) -> tuple[Image, tuple[int, int]]:
    """The image as `decode` gives it, or smaller, and its full width and height in pixels.

    A JPEG is made smaller by 2, 4 or 8 while it is decoded, which costs half the time, if its
    longest side keeps at least `SPARE` times ``longest`` pixels and its sides divide well enough;
    everything else is decoded whole.

    Args:
        longest: the longest side that the network needs, in pixels, from 1.
        data, header, name: as for `decode`.

    Raises:
        MediaError: as `decode`.
    """
    header = header or read_header(data)
    divisor = 1
    if header.kind in _JPEG:
        divisor = max(n for n in (1, 2, 4, 8) if n == 1 or _fits(header.size, n, longest))
    image = _decode(data, header, divisor, name)
    if divisor == 1:
        return image, (image.shape[1], image.shape[0])
    return image, header.size[::-1] if header.orientation >= 5 else header.size


def _fits(size: tuple[int, int], divisor: int, longest: int) -> bool:
    """Whether an image of ``size`` may be decoded at one part in ``divisor`` of it."""
    over = max((-side % divisor) / side for side in size)
    return max(size) >= divisor * longest * SPARE and over <= OVERHANG


@dataclass(frozen=True)
class Header:
    """What the header of an image says.

    Args:
        kind: the format as Pillow calls it, None where Pillow does not know it.
        size: width and height in pixels, before it is turned.
        orientation: how the browser turns it, 1 to 8 as in EXIF; from 5 on by a quarter.
        alpha: whether parts of it may be transparent.
    """

    kind: str | None
    size: tuple[int, int]
    orientation: int = 1
    alpha: bool = False

    @property
    def memory(self) -> int:
        """What decoding it takes at its peak, in bytes; `MEMORY` where that cannot be told."""
        if self.kind is None:
            return MEMORY
        return self.size[0] * self.size[1] * MORE_BYTES.get(self.kind, PIXEL_BYTES)


def read_header(data: bytes) -> Header:
    """The header of the image in ``data``.

    Raises:
        MediaError: there is no data, or it is a decompression bomb.
    """
    if not data:
        raise MediaError("the file is empty")
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            header = Header(
                picture.format,
                picture.size,
                _orientation(picture.info.get("exif", b"")) if picture.format in _TURNED else 1,
                picture.mode in ("RGBA", "LA", "PA", "RGBa", "La")
                or "transparency" in picture.info,
            )
    except PillowImage.DecompressionBombError:
        raise MediaError(f"more than {MAX_PIXELS} pixels", "too_large") from None
    except Exception:
        return Header(None, (0, 0))  # OpenCV may know it; `ls_yolo` has set its limit
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise MediaError(f"{width} x {height} is more than {MAX_PIXELS} pixels", "too_large")
    return header


def _orientation(exif: bytes) -> int:
    """The orientation in ``exif``, 1 to 8, read as strictly as Chromium does: one number of 16 bits
    in the first directory. Pillow and OpenCV take others too, and XMP's."""
    tiff = exif.removeprefix(b"Exif\0\0")
    with contextlib.suppress(struct.error):  # a damaged EXIF block is none
        if order := {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4]):
            (start,) = struct.unpack_from(f"{order}I", tiff, 4)
            (entries,) = struct.unpack_from(f"{order}H", tiff, start)
            for at in range(start + 2, start + 2 + 12 * entries, 12):
                *entry, value = struct.unpack_from(f"{order}HHIH", tiff, at)
                if entry == [0x0112, 3, 1] and value in _UPRIGHT:
                    return int(value)
    return 1


def _decode(data: bytes, header: Header, divisor: int, name: str) -> Image:
    # OpenCV would drop alpha, and show what nobody sees. Of a PNG that is cut off its library would
    # write to the log.
    cut_off = header.kind == "PNG" and b"IEND" not in data[-64:]
    if header.kind in _BY_OPENCV and not header.alpha and not cut_off:
        flag = {
            1: cv2.IMREAD_COLOR,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }[divisor]
        if header.kind in _TURNED:
            flag |= cv2.IMREAD_IGNORE_ORIENTATION
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
            if image is not None:
                return _upright(image.astype(np.uint8, copy=False), header)
    try:
        return _upright(_by_pillow(data, header.kind in _PARTLY_SHOWN, name), header)
    # Ultralytics has Pillow look for a package of its own for what Pillow does not know.
    except (UnidentifiedImageError, ImportError):
        raise MediaError(
            "not an image that can be decoded: neither OpenCV nor Pillow knows its format"
        ) from None
    except Exception as error:  # Pillow's plugins raise many kinds
        raise MediaError(f"not an image that can be decoded: {error}") from None


def _upright(image: Image, header: Header) -> Image:
    turned: Image = _UPRIGHT[header.orientation](image)
    return turned


def _by_pillow(data: bytes, partly: bool, name: str) -> Image:
    """``partly``: what is there of an image that is cut off counts."""
    with PillowImage.open(io.BytesIO(data)) as picture:
        try:
            picture.load()
        except OSError as error:
            if not partly:
                raise
            if picture.format in _JPEG and not data.endswith(_END_OF_JPEG):
                # With an end all is decoded that is there, of a progressive one too.
                image = _by_pillow(data + _END_OF_JPEG, False, name)
            else:
                picture.tile = []  # so what was decoded until here is the picture
                image = _pixels(picture)
            log.warning("%s: %s; predicted on what is there, as the browser shows it", name, error)
            return image
        return _pixels(picture)


def _pixels(picture: PillowImage.Image) -> Image:
    flat = np.empty((picture.height, picture.width, 3), np.uint8)
    # In strips, or copies of the whole would take several times as much as it does.
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        strip = _flat(picture.crop((0, top, picture.width, bottom)))
        flat[top:bottom] = np.asarray(strip, dtype=np.uint8)[:, :, ::-1]
    return flat


def _flat(picture: PillowImage.Image) -> PillowImage.Image:
    """``picture`` in three channels of 8 bits, on white."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        values: Any = np.asarray(picture).astype(np.int64)
        picture = PillowImage.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = PillowImage.new("RGBA", picture.size, (255, 255, 255, 255))
    return PillowImage.alpha_composite(white, picture).convert("RGB")
