"""How much of images is in memory at a time."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Literal

MAX_BYTES = 256 * 1024 * 1024
"""The largest file that is read, in bytes."""
MAX_PIXELS = 178_956_970
"""The largest image that is decoded, in pixels: what Pillow takes for a decompression bomb."""
PIXEL_BYTES = 8
"""What decoding takes at its peak for each pixel, in bytes, the decoded image with it; measured."""
MORE_BYTES = {"WEBP": 17, "AVIF": 16, "JPEG2000": 25, "TIFF": 16}
"""The same for formats whose decoders keep copies of their own."""
MEMORY = MAX_PIXELS * PIXEL_BYTES
"""What is decoded at a time may take this much together, in bytes: an image of the largest size is
decoded alone, images of up to 44 million pixels four at a time."""
LARGE = 16 * 1024 * 1024
"""More bytes than images have: of what comes over a network and is larger, only a few files
are in memory at a time."""
LARGE_FILES = 2
"""How many those few are."""
Kind = Literal["url", "missing", "forbidden", "too_large", "too_slow", "unreachable", "damaged"]


class MediaError(ValueError):
    """An image cannot be had; the message says which, why and what to do. Never holds a token.

    ``kind``: what metrics count it under.
    """

    def __init__(self, message: str, kind: Kind = "damaged") -> None:
        super().__init__(message)
        self.kind = f"media_{kind}"


class Memory:
    """So many bytes, of which each takes what it needs, in turn: what is large is not passed by
    what is small for ever."""

    def __init__(self, size: int = MEMORY) -> None:
        self._size = self._free = size
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Waits until ``amount`` bytes are free, or all of them, and takes them meanwhile."""
        amount = min(amount, self._size)
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._freed:
                self._free += amount
                self._freed.notify()


_large = threading.BoundedSemaphore(LARGE_FILES)
_held: ContextVar[contextlib.ExitStack | None] = ContextVar("held", default=None)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """A large file that `gather` makes in this thread counts as in memory until the end of it."""
    with contextlib.ExitStack() as held:
        token = _held.set(held)
        try:
            yield
        finally:
            _held.reset(token)


def read_limited(chunks: Iterable[bytes], limit: int, name: str, deadline: float) -> bytes:
    """The file ``name`` that comes in ``chunks``, without a second copy of it.

    Raises:
        MediaError: it has more than ``limit`` bytes.
        TimeoutError: it was not here by ``deadline`` (`time.monotonic`).
    """
    data, held = io.BytesIO(), _held.get()
    for chunk in chunks:
        size = data.tell() + len(chunk)
        if size > limit:
            raise MediaError(f"{name}: larger than {limit >> 20} MiB", "too_large")
        if held is not None and data.tell() <= LARGE < size:
            if not _large.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            held.callback(_large.release)
        data.write(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
    return data.getvalue()
