"""Label Studio's run-length encoding of brush masks, made of the runs alone: a mask as large as the
image, of four values a pixel, would be 48 MB for 12 megapixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ls_yolo.results import Mask

_Ints = npt.NDArray[np.int64]

SIZES = np.array([6, 8, 12, 16])
"""Bits of a run's length: each run takes the fewest that do, and says which."""
LONGEST = 1 << 16
"""Values in a run at most."""
CHANNELS = 4
"""Values of a pixel: red, green, blue, opacity; 255 where it is painted, else 0."""


def encode(mask: Mask, width: int, height: int) -> list[int]:
    """The bytes, 0 to 255, of ``mask`` in an image of ``width`` by ``height`` pixels.

    First how many values there are (32 bits), the bits of a value less 1 (5) and of each size less
    1 (4). Then each run: a bit that says that it is one, which size (2), its length less 1, its
    value (8).
    """
    lengths, values = _runs(mask, width, height)
    size = np.searchsorted(1 << SIZES, lengths)
    codes = ((4 | size) << SIZES[size] | lengths - 1) << 8 | values
    head = np.array([CHANNELS * width * height, 7, *(SIZES - 1)])
    bits = np.array([32, 5, 4, 4, 4, 4])
    return list(_packed(np.append(head, codes), np.append(bits, 11 + SIZES[size])))


def _runs(mask: Mask, width: int, height: int) -> tuple[_Ints, _Ints]:
    """Lengths and values of the runs, row by row."""
    rows, columns = mask.pixels.shape
    framed = np.zeros((rows, columns + 2), np.bool_)
    framed[:, 1:-1] = mask.pixels
    # Where a run begins, and where it has ended, by turns.
    row, column = np.divmod(np.flatnonzero(framed[:, 1:] ^ framed[:, :-1]), columns + 1)
    bounds = (mask.top + row) * width + mask.left + column
    # From one side of the image to the other, a run goes on in the next row.
    goes_on = np.flatnonzero(bounds[1:-1:2] == bounds[2::2]) * 2 + 1
    bounds = np.delete(bounds, np.append(goes_on, goes_on + 1))
    lengths = np.diff(bounds, prepend=0, append=width * height) * CHANNELS
    values = np.arange(len(lengths)) % 2 * 255
    # Runs that are too long are several, of which the last has what is left.
    pieces = -(-lengths // LONGEST)
    last = np.cumsum(pieces)[pieces > 0] - 1
    values = np.repeat(values, pieces)
    found = np.full(len(values), LONGEST)
    found[last] = ((lengths - 1) % LONGEST + 1)[pieces > 0]
    return found, values


def _packed(codes: _Ints, bits: _Ints) -> bytes:
    """The lowest ``bits`` of each of the ``codes``, one after the other, as bytes."""
    of = np.repeat(np.arange(len(codes)), bits)
    place = np.cumsum(bits)[of] - np.arange(len(of)) - 1
    return np.packbits((codes[of] >> place & 1).astype(np.uint8)).tobytes()
