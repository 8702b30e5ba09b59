"""Video files: their frames, one after the other, and when each is shown."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2

from ls_yolo.images.limits import MAX_PIXELS, MediaError
from ls_yolo.results import Image

CONTAINERS = {
    (4, b"ftyp"): "MP4",
    (4, b"moov"): "QuickTime",
    (4, b"mdat"): "QuickTime",
    (4, b"wide"): "QuickTime",
    (0, b"\x1a\x45\xdf\xa3"): "WebM or Matroska",
    (8, b"AVI "): "AVI",
    (0, b"OggS"): "Ogg",
}
"""What files are opened: bytes at a place from the beginning of a file. A playlist or a list of
files is not among them, since it makes the decoder open what it names, anywhere."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video. ``seconds``: when it is shown, from 0. ``image``: upright."""

    seconds: float
    image: Image


class Video:
    """An open video file; a context manager. Not to be shared between threads.

    width, height: of the upright frames, in pixels.
    rate: frames a second on average, as the file says; 0 where it does not.
    duration: seconds, as the file says; 0 where it does not.

    Raises:
        MediaError: the file is no video, or none of its frames can be decoded.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        try:
            with path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise MediaError(f"{name}: cannot be read: {error.strerror}", "missing") from None
        kind = next((k for (at, b), k in CONTAINERS.items() if head[at:].startswith(b)), "")
        if not kind:
            known = ", ".join(dict.fromkeys(CONTAINERS.values()))
            raise MediaError(f"{name}: not a video; expected one of {known}")
        self._file = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:
            if not self._file.isOpened():
                raise MediaError(f"{name}: looks like {kind}, but has no video that can be read")
            self.rate = self._number(cv2.CAP_PROP_FPS)
            count = self._number(cv2.CAP_PROP_FRAME_COUNT)
            self.duration = count / self.rate if self.rate else 0.0
            self._measure()
            # A codec that nothing here decodes is found out by the first frame only.
            if not self._file.grab():
                raise MediaError(
                    f"{name}: no frame can be decoded of its codec {self._codec()}; "
                    "convert it to H.264, for example by ffmpeg -i in.mp4 -c:v libx264 out.mp4"
                )
            # Times are told from the first frame on, but a browser counts the time before it too.
            late = self._number(cv2.CAP_PROP_PTS)
            self._start = late / self.rate if self.rate else 0.0
        except BaseException:
            self._file.release()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.release()

    def frames(self, wanted: Callable[[float], bool] = lambda _: True) -> Iterator[Frame]:
        """The frames, in the order in which they are shown, once; only the one that is asked for is
        in memory.

        wanted: whether the frame that is shown at so many seconds is needed; others are not made
            into pixels.

        Raises:
            MediaError: a frame that was decoded cannot be had as pixels, or the file has no times.
        """
        last, count, times = -1.0, 0, 0
        there = True  # the first is decoded already
        while there:
            # A damaged file may count backwards; no frame is shown before the one before it.
            seconds = max(self._start + self._number(cv2.CAP_PROP_POS_MSEC) / 1000, 0.0)
            count, times = count + 1, times + (seconds > last)
            if seconds > last and wanted(seconds):
                made, image = self._file.retrieve()
                if not made:
                    raise MediaError(f"{self._name}: the frame at {seconds:.3f} s is damaged")
                yield Frame(seconds, cast(Image, image))
                del image
            last = max(last, seconds)
            there = self._file.grab()
        if times == 1 < count:
            raise MediaError(f"{self._name}: does not say when its {count} frames are shown")

    def _measure(self) -> None:
        width = int(self._number(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._number(cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_PIXELS:
            raise MediaError(
                f"{self._name}: {width} x {height} pixels, more than {MAX_PIXELS}", "too_large"
            )
        self.width, self.height = width, height

    def _codec(self) -> str:
        code = int(self._number(cv2.CAP_PROP_FOURCC))
        text = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip("\0 ")
        return repr(text) if text.isprintable() and text else "of unknown name"

    def _number(self, what: int) -> float:
        with contextlib.suppress(cv2.error):
            found = self._file.get(what)
            if math.isfinite(found) and found > 0:
                return float(found)
        return 0.0
