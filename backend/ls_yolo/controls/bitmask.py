"""BitmaskLabels: masks, pixel by pixel, as pictures."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ls_yolo.controls.base import ControlType, Region, Target, drawn_masks, region
from ls_yolo.results import Mask, Masks


def regions(target: Target, result: Masks) -> list[Region]:
    """A region for each mask of ``result`` with a pixel.

    https://labelstud.io/tags/bitmasklabels
    """
    found = []
    for mask, index, score in drawn_masks(target, result):
        data = base64.b64encode(png(mask, target.width, target.height)).decode()
        found += region(target, {"imageDataURL": f"data:image/png;base64,{data}"}, index, score)
    return found


def png(mask: Mask, width: int, height: int) -> bytes:
    """``mask`` as a PNG as large as the image, as the page itself stores it: black where it is, and
    transparent elsewhere. A bit a pixel, compressed row by row: it is never there as a whole."""
    rows, columns = mask.pixels.shape
    packer = zlib.compressobj(level=1)
    length = 1 + -(-width // 8)  # each row begins with the filter of its bytes: 0, none
    found = [packer.compress(bytes(length * mask.top))]
    line = np.zeros(width, np.uint8)
    for row in mask.pixels:
        line[mask.left : mask.left + columns] = row
        found.append(packer.compress(b"\0" + np.packbits(line).tobytes()))
    found.append(packer.compress(bytes(length * (height - mask.top - rows))))
    found.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 1, 3, 0, 0, 0)  # 1 bit, of a palette
    parts = {
        b"IHDR": header,
        b"PLTE": bytes(6),
        b"tRNS": b"\x00\xff",
        b"IDAT": b"".join(found),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )


CONTROL = ControlType("BitmaskLabels", "Image", lambda _: (Masks,), regions, unlabelled="Bitmask")
