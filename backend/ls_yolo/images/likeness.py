"""Which images look alike: a perceptual hash of each, and groups of hashes that are near.

The hash is pHash: the low frequencies of a small grey copy, each as one bit, whether it is above
the median. See N. Krawetz, "Looks Like It" (2011), and C. Zauner, "Implementation and Benchmarking
of Perceptual Image Hash Functions" (2010).
"""

from __future__ import annotations

import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ls_yolo import files
from ls_yolo.results import Image

SIDE = 32
"""The sides of the grey copy, in pixels."""
ENOUGH = 320
"""No more pixels a side are read: 0.3 ms for 12 megapixels in place of 24, and as good a hash."""
LOW = 8
"""The frequencies that count, a side: together the 64 bits."""
FLAT = 4.0
"""What a frequency must have to count as there: noise of JPEG is 1 to 2, the faintest picture that
a person sees is 10. Without it, the bits of a plain image would be noise."""
RADIUS = 7
"""In how many of 64 bits images that look alike may differ. Unlike ones differ in 20 to 40."""
MOST = 1 << 16
"""Groups that are remembered at most, in half a megabyte; beyond, the oldest are forgotten."""

Hashes = npt.NDArray[np.uint64]
"""Shape (n,): perceptual hashes."""


def perceptual_hash(image: Image) -> int:
    """The perceptual hash of ``image``, 64 bits, which hardly changes as the image is encoded
    anew, scaled, made somewhat lighter or darker."""
    height, width = image.shape[:2]
    read = cv2.resize(
        image, (min(width, ENOUGH), min(height, ENOUGH)), interpolation=cv2.INTER_NEAREST
    )
    small = cv2.resize(read, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)
    low = np.asarray(cv2.dct(grey), np.float32)[:LOW, :LOW].ravel()
    # The first is how light the image is as a whole: many times the others, and no likeness.
    bits = low > max(float(np.median(low[1:])), FLAT)
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def cluster(hash_: int) -> int:
    """The number of the group that began with the hash ``hash_``, 0 to 2**31 - 1: what Label
    Studio's column ``cluster`` takes. Two of 65,536 groups may share one."""
    return zlib.crc32(hash_.to_bytes(8, "big")) & 0x7FFFFFFF


class Clusters:
    """Groups of images that look alike, found one by one; any thread may ask.

    An image belongs to the oldest group whose first image is within `RADIUS` of it; else it is the
    first of a group of its own (the leader algorithm: J. A. Hartigan, "Clustering Algorithms",
    1975). The oldest and not the nearest, since a nearer group may come later. What holds:

    - Images of equal hash have one number, in this run and in every later one that loads what this
      one has saved, as long as the group is remembered.
    - Numbers depend on hashes alone, not on how many groups there are, and never change.
    - Which image is the first depends on the order in which they come. So two runs side by side, or
      in another order, may give the same images other numbers.

    first: hashes that groups begin with, oldest first.
    """

    def __init__(self, first: Hashes | None = None, most: int = MOST) -> None:
        self._hashes = np.zeros(most, np.uint64)
        self._used = 0
        self._next = 0
        self._lock = threading.Lock()
        for one in [] if first is None else first[-most:].tolist():
            self._remember(one)

    def of(self, image: Image) -> int:
        """The number of the group of ``image``, 0 to 2**31 - 1."""
        return self.of_hash(perceptual_hash(image))

    def of_hash(self, hash_: int) -> int:
        """The number of the group of an image with the perceptual hash ``hash_``, of 64 bits."""
        # All of them are compared: for 65,536 that takes 0.1 ms, and no index has to be kept.
        with self._lock:
            if self._used:
                known = self._hashes[: self._used]
                near = np.flatnonzero(np.bitwise_count(known ^ np.uint64(hash_)) <= RADIUS)
                if len(near):
                    start = near.searchsorted(self._start())
                    return cluster(int(known[near[start % len(near)]]))
            self._remember(hash_)
            return cluster(hash_)

    def _remember(self, hash_: int) -> None:
        self._hashes[self._next] = hash_
        self._next = (self._next + 1) % len(self._hashes)
        self._used = min(self._used + 1, len(self._hashes))

    @property
    def first(self) -> Hashes:
        """The hashes that the groups begin with, oldest first."""
        with self._lock:
            return np.roll(self._hashes[: self._used], -self._start())

    def _start(self) -> int:
        """Where the oldest hash is: they go round once all places are taken."""
        return self._next if self._used == len(self._hashes) else 0

    def save(self, path: Path) -> None:
        """Writes the groups to the file ``path``, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        files.write(path, self.first.astype("<u8").tobytes())

    @classmethod
    def load(cls, path: Path, most: int = MOST) -> Clusters:
        """The groups that `save` has written; none where the file is not there or is damaged: then
        groups only begin anew."""
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        whole = np.frombuffer(data, "<u8") if len(data) % 8 == 0 else np.zeros(0, "<u8")
        return cls(whole.astype(np.uint64), most)
