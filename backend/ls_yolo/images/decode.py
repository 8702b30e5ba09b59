"""Bytes to an upright image."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from ls_yolo.images.limits import MAX_PIXELS, MEMORY, MORE_BYTES, PIXEL_BYTES, MediaError
from ls_yolo.results import Image

SPARE = 3
"""A image is decoded at no fewer than this many times the pixels, a side, that the network
needs. On clean images yolov8n's boxes moved by 0.37 per cent of the image at most, with 2 by
up to 1.3; on noisy ones by up to 2.2."""
OVERHANG = 0.001
"""By what part of a side the last pixel of a smaller copy may reach over the image's edge."""
STRIP = 1 << 18
"""About how many pixels are brought to three channels at a time."""
_EXIF_ORIENTATION = 0x0112
# What OpenCV decodes as the browser shows it; the rest is Pillow's: of WebP and AVIF OpenCV does
# not know the rotation, of GIF not every kind of frame. None is what Pillow does not know.
_BY_OPENCV = frozenset({"JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "SUN", None})


def decode(data: bytes, header: Header | None = None) -> Image:
    """The upright image in ``data``, as the browser shows it.

    ``header``: what `look` found, where that is known.

    EXIF rotation is applied, what is transparent is white, 16 bits are scaled to 8, and of an
    animation it is the first frame.

    Raises:
        MediaError: the data is no image, is cut off, or has too many pixels.
    """
    return _decode(data, header or read_header(data), cv2.IMREAD_COLOR)


def decode_near(
    data: bytes, longest: int, header: Header | None = None
) -> tuple[Image, tuple[int, int]]:
    """The image as `decode` gives it, or smaller, and the full width and height in pixels.

    A JPEG is made smaller by 2, 4 or 8 while it is decoded, which costs half the time, if its
    longest side keeps at least `SPARE` times ``longest`` pixels and its sides divide well enough;
    everything else is decoded whole.

    Raises:
        MediaError: as `decode`.
    """
    header = header or read_header(data)
    divisor = 1
    if header.kind in ("JPEG", "MPO"):
        divisor = max(n for n in (1, 2, 4, 8) if n == 1 or _fits(header.size, n, longest))
    flag = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[divisor]
    image = _decode(data, header, flag)
    height, width = image.shape[:2]
    if divisor == 1:
        return image, (width, height)
    sizes = [header.size, header.size[::-1]]
    if header.turned:
        sizes.reverse()
    # Whatever the two libraries make of a strange header, the pixels are right.
    full = min(sizes, key=lambda s: abs(width * divisor - s[0]) + abs(height * divisor - s[1]))
    return image, full


def _fits(size: tuple[int, int], divisor: int, longest: int) -> bool:
    """Whether an image of ``size`` may be decoded at one part in ``divisor`` of it."""
    over = max((-side % divisor) / side for side in size)
    return max(size) >= divisor * longest * SPARE and over <= OVERHANG


@dataclass(frozen=True)
class Header:
    """What the header of an image says. ``kind``: the format as Pillow calls it, None where Pillow
    does not know it; ``size``: width and height before it is turned; ``turned``: by a quarter."""

    kind: str | None
    size: tuple[int, int]
    turned: bool = False
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
                picture.format in ("JPEG", "MPO") and _orientation(picture) >= 5,
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


def _orientation(picture: PillowImage.Image) -> int:
    with contextlib.suppress(Exception):  # a damaged EXIF block is none
        return int(picture.getexif().get(_EXIF_ORIENTATION, 1))
    return 1


def _decode(data: bytes, header: Header, flag: int) -> Image:
    # OpenCV applies EXIF rotation in these modes; it is what ultralytics reads with. It would drop
    # alpha, and show what nobody sees. Of a PNG that is cut off its library would write to the log.
    cut_off = header.kind == "PNG" and b"IEND" not in data[-64:]
    if header.kind in _BY_OPENCV and not header.alpha and not cut_off:
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
            if image is not None:
                return image.astype(np.uint8, copy=False)
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            ImageOps.exif_transpose(picture, in_place=True)
            flat = np.empty((picture.height, picture.width, 3), np.uint8)
            # In strips, or copies of the whole would take several times as much as it does.
            rows = max(1, STRIP // picture.width)
            for top in range(0, picture.height, rows):
                bottom = min(top + rows, picture.height)
                strip = _flat(picture.crop((0, top, picture.width, bottom)))
                flat[top:bottom] = np.asarray(strip, dtype=np.uint8)[:, :, ::-1]
            return flat
    # Ultralytics has Pillow look for a package of its own for what Pillow does not know.
    except (UnidentifiedImageError, ImportError):
        raise MediaError(
            "not an image that can be decoded: neither OpenCV nor Pillow knows its format"
        ) from None
    except Exception as error:  # Pillow's plugins raise many kinds
        raise MediaError(f"not an image that can be decoded: {error}") from None


def _flat(picture: PillowImage.Image) -> PillowImage.Image:
    """``picture`` in three channels of eight bits, on white."""
    if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        values: Any = np.asarray(picture).astype(np.int64)
        picture = PillowImage.fromarray(np.clip(values >> 8, 0, 255).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = PillowImage.new("RGBA", picture.size, (255, 255, 255, 255))
    return PillowImage.alpha_composite(white, picture).convert("RGB")
