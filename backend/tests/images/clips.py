"""Clips that say of each frame which one it is, and what a file may say of when they are shown."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT, BITS = 128, 64, 8
BLOCK = WIDTH // BITS


def picture(number: int) -> np.ndarray:
    """White and black blocks along the top: the bits of ``number``, the lowest first."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for bit in range(BITS):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
    return image


def number(image: np.ndarray) -> int:
    """Which frame ``image`` is."""
    row = image[BLOCK // 2, BLOCK // 2 :: BLOCK].mean(axis=-1)
    return sum(int(value > 128) << bit for bit, value in enumerate(row))


def write(path: Path, count: int, rate: float = 25.0) -> Path:
    """An MP4 file of ``count`` frames."""
    file = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (WIDTH, HEIGHT))
    for frame in range(count):
        file.write(picture(frame))
    file.release()
    return path


# https://developer.apple.com/documentation/quicktime-file-format: a file is boxes, each its length,
# its kind and what is in it. OpenCV writes moov last, so its length may change.


def shown_for(path: Path, seconds: Sequence[float]) -> None:
    """Has each frame of an MP4 file shown for as many ``seconds``."""
    units = [round(length * 1000) for length in seconds]
    rows = b"".join(struct.pack(">II", 1, length) for length in units)
    scale = ("moov", "trak", "mdia", "mdhd")
    _change(path, scale, lambda old: old[:12] + struct.pack(">II", 1000, sum(units)) + old[20:])
    table = ("moov", "trak", "mdia", "minf", "stbl", "stts")
    _change(path, table, lambda _: struct.pack(">II", 0, len(units)) + rows)
    _change(path, ("moov", "trak", "edts", "elst"), lambda _: _edits((sum(units) or 1000, 0)))


def late(path: Path, seconds: float) -> None:
    """Has an MP4 file show nothing for ``seconds``, then its frames."""
    before = round(seconds * 1000)  # of the 1000 units a second that OpenCV's files have
    _change(path, ("moov", "trak", "edts", "elst"), lambda _: _edits((before, -1), (100_000, 0)))


def turned(path: Path) -> None:
    """Has an MP4 file shown turned by a quarter, clockwise."""
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, HEIGHT << 16, 0, 1 << 30)
    _change(path, ("moov", "trak", "tkhd"), lambda old: old[:40] + matrix + old[76:])


def unknown_codec(path: Path) -> None:
    """Has an MP4 file say that its frames are AV1, which they are not."""
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"av01").replace(b"esds", b"free"))


def _edits(*rows: tuple[int, int]) -> bytes:
    packed = b"".join(struct.pack(">IiI", length, start, 1 << 16) for length, start in rows)
    return struct.pack(">II", 0, len(rows)) + packed


def _change(path: Path, where: Sequence[str], change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(_changed(path.read_bytes(), where, change))


def _changed(data: bytes, where: Sequence[str], change: Callable[[bytes], bytes]) -> bytes:
    parts = []
    for kind, inside in _boxes(data):
        if kind == where[0].encode():
            rest = where[1:]
            inside = _changed(inside, rest, change) if rest else change(inside)
        parts.append(struct.pack(">I", len(inside) + 8) + kind + inside)
    return b"".join(parts)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        yield data[at + 4 : at + 8], data[at + 8 : at + length]
        at += length


def starts(seconds: Sequence[float]) -> list[float]:
    """When frames begin that are shown for so many ``seconds`` each."""
    return [0.0, *itertools.accumulate(seconds[:-1])]
