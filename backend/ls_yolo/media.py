"""A task's URL to a decoded, upright image, and what may be read on the way."""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import posixpath
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, unquote_to_bytes, urlencode, urlsplit

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from ls_yolo.engines import Image

MAX_BYTES = 256 * 1024 * 1024
"""The largest file that is read, in bytes."""
MAX_PIXELS = 178_956_970
"""The largest image that is decoded, in pixels: what Pillow takes for a decompression bomb."""
PIXEL_BYTES = 8
"""What decoding takes at its peak for each pixel, in bytes, the decoded image with it; measured."""
MORE_BYTES = {"WEBP": 17, "AVIF": 12, "JPEG2000": 25, "TIFF": 14}
"""The same for formats whose decoders keep copies of their own."""
MEMORY = MAX_PIXELS * PIXEL_BYTES
"""What is decoded at a time may take this much together, in bytes: an image of the largest size is
decoded alone, photographs of up to 44 million pixels four at a time."""
LARGE = 16 * 1024 * 1024
"""More bytes than photographs have: of what comes over a network and is larger, only a few files
are in memory at a time."""
LARGE_FILES = 2
"""How many those few are."""

SPARE = 3
"""A photograph is decoded at no fewer than this many times the pixels, a side, that the network
needs. On clean photographs yolov8n's boxes moved by 0.37 per cent of the image at most, with 2 by
up to 1.3; on noisy ones by up to 2.2."""
OVERHANG = 0.001
"""By what part of a side the last pixel of a smaller copy may reach over the image's edge."""
STRIP = 1 << 18
"""About how many pixels are brought to three channels at a time."""
STORAGES = frozenset({"s3", "gs", "azure-blob"})
"""Addresses that Label Studio's cloud storages write into tasks; it passes the files on."""

_LOCAL, _WEB = "/data/local-files", frozenset({"http", "https"})
_EXIF_ORIENTATION = 0x0112
# What OpenCV decodes as the browser shows it; the rest is Pillow's: of WebP and AVIF OpenCV does
# not know the rotation, of GIF not every kind of frame. None is what Pillow does not know.
_BY_OPENCV = frozenset({"JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "SUN", None})

Place = Literal["hand", "studio", "web"]
Kind = Literal["url", "missing", "forbidden", "too_large", "too_slow", "unreachable", "damaged"]


class MediaError(ValueError):
    """An image cannot be had; the message says which, why and what to do. Never holds a token.

    ``kind``: what metrics count it under.
    """

    def __init__(self, message: str, kind: Kind = "damaged") -> None:
        super().__init__(message)
        self.kind = f"media_{kind}"


class Elsewhere(Exception):
    """Label Studio has the file at another address, which needs no token: ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


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


def gather(chunks: Iterable[bytes], limit: int, name: str, deadline: float) -> bytes:
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


class Fetcher(Protocol):
    """What fetches a path of Label Studio with a token."""

    def fetch(self, path: str, limit: int, query: str = "") -> bytes:
        """The bytes under ``path`` and ``query``; at most ``limit`` of them, else a `MediaError`.

        Raises:
            Elsewhere: with a ``query`` only, the file of a storage lies at an address of its own.
        """


class WebFetcher(Protocol):
    """What fetches http(s) addresses without a token: `web.Web`."""

    def fetch(self, url: str, limit: int) -> bytes:
        """The bytes at ``url``; at most ``limit`` of them, else a `MediaError`."""


def place(url: object, studio_url: str) -> Place:
    """Where `read` has ``url`` from; what is no URL at all counts as at hand."""
    if not isinstance(url, str) or _is_data(url):
        return "hand"
    try:
        _, parts, path = _parse(url, studio_url)
    except MediaError:
        return "hand"
    if path.endswith(_LOCAL):
        return "hand"
    return "web" if parts.scheme.lower() in _WEB and not _proxied(parts, path) else "studio"


def read(
    url: str,
    root: Path,
    studio: Fetcher | None,
    studio_url: str,
    task_id: object = None,
    web: WebFetcher | None = None,
) -> bytes:
    """The file that a task's ``url`` stands for.

    ``/data/local-files/?d=...`` is read from the folder ``root`` and never from outside it,
    symbolic links followed. ``/data/upload/...``, the addresses under which Label Studio passes on
    the files of storages (``/tasks/1/resolve/?fileuri=...``), and those files' own
    (``s3://bucket/a.jpg``, for the task ``task_id``) are fetched from Label Studio. ``http://...``
    and ``https://...`` are fetched by ``web``. ``data:...`` holds the file itself.

    Label Studio writes the address and path that it is published under before a local file and a
    storage's, the path before an upload.

    Raises:
        MediaError: the URL is of another kind, or the file is missing, outside, or too large.
        StudioError: Label Studio cannot be asked.
    """
    if _is_data(url):
        return _read_data(url.strip())
    url, parts, path = _parse(url, studio_url)
    if path.endswith(_LOCAL):
        values = parse_qs(parts.query).get("d", [""])
        return _read_local(values[-1], root)
    if proxied := _proxied(parts, path):
        return _of_studio(url, *proxied, studio, web)
    if parts.scheme.lower() in STORAGES:
        if not isinstance(task_id, int) or isinstance(task_id, bool):
            raise MediaError(
                f"{shown(url)}: Label Studio passes a storage's file on for a stored task only, "
                f"and this one has the id {task_id!r:.50}",
                "url",
            )
        try:
            file = base64.urlsafe_b64encode(url.encode()).decode()
        except UnicodeEncodeError:
            raise MediaError(f"{shown(url)}: not a URL", "url") from None
        return _of_studio(url, f"/tasks/{task_id}/resolve/", file, studio, web)
    if not parts.scheme and not parts.netloc:
        _, upload, name = path.partition("/data/upload/")
        if upload:
            return _of_studio(url, upload + name, "", studio, web)
    if parts.scheme.lower() in _WEB and web is not None:
        return web.fetch(url, MAX_BYTES)
    raise MediaError(
        f"{shown(url)}: not a URL that the backend reads; expected /data/local-files/?d=..., "
        "/data/upload/..., https://..., s3://... or data:...",
        "url",
    )


def _is_data(url: str) -> bool:
    return url.lstrip()[:5].lower() == "data:"


def _parse(url: str, studio_url: str) -> tuple[str, SplitResult, str]:
    """A URL without Label Studio's own address, its parts, and its path, normalised."""
    url = url.strip()
    if studio_url and url.startswith(studio_url.rstrip("/") + "/"):
        url = url[len(studio_url.rstrip("/")) :]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise MediaError(f"{shown(url)}: not a URL: {error}", "url") from None
    # Before it is compared: /data/upload/../../api/... is not an upload.
    return url, parts, posixpath.normpath(unquote(parts.path))


def _proxied(parts: SplitResult, path: str) -> tuple[str, str] | None:
    """Under which path Label Studio passes a storage's file on, and what it calls the file."""
    found = re.search(r"/(tasks|projects)/[0-9]+/(resolve|presign)$", path)
    files = parse_qs(parts.query).get("fileuri")
    return (found[0] + "/", files[-1]) if found and files else None


def _of_studio(
    url: str, path: str, file: str, studio: Fetcher | None, web: WebFetcher | None
) -> bytes:
    if studio is None:
        raise MediaError(
            f"{shown(url)}: Label Studio has it, but the backend has no token; "
            "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
            "url",
        )
    if not file:
        return studio.fetch(path, MAX_BYTES)
    try:
        return studio.fetch(path, MAX_BYTES, urlencode({"fileuri": file}))
    except Elsewhere as found:
        if web is None:
            raise MediaError(
                f"{shown(url)}: its storage sends to {shown(found.url)}, and the backend reads no "
                "such addresses; switch pre-signed URLs off in the storage",
                "url",
            ) from None
        return web.fetch(found.url, MAX_BYTES)


def _read_data(url: str) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc2397"""
    head, comma, body = url.partition(",")
    name = f"{head[:60]!r},..."
    if not comma:
        raise MediaError(f"{name}: not a data URL: it has no comma", "url")
    # Three bytes are four digits; looked at before anything is copied.
    if len(body) > MAX_BYTES // 3 * 4 + 4:
        raise MediaError(f"{name}: larger than {MAX_BYTES >> 20} MiB", "too_large")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(re.sub(r"\s", "", unquote(body)) + "==", validate=False)
    except (binascii.Error, ValueError):
        raise MediaError(f"{name}: its base64 is damaged") from None


def _read_local(name: str, root: Path) -> bytes:
    if not name:
        raise MediaError("/data/local-files/?d=: names no file", "url")
    root = root.resolve()
    outside = MediaError(
        f"{name!r:.200}: lies outside {root}; only files inside it are read", "forbidden"
    )
    try:
        # As Label Studio does it: a leading slash means the root.
        path = (root / posixpath.normpath(name).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            raise outside
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MediaError(f"{name!r:.200}: not a file", "missing")
        if found.st_size > MAX_BYTES:
            raise MediaError(f"{name!r:.200}: larger than {MAX_BYTES >> 20} MiB", "too_large")
        return path.read_bytes()
    except MediaError:
        raise
    except FileNotFoundError:
        if name.startswith("/") and not Path(name).is_relative_to(root):
            raise outside from None
        raise MediaError(
            f"{name!r:.200}: not found in {root}; "
            "mount the same folder in Label Studio and in the backend",
            "missing",
        ) from None
    except OSError as error:
        raise MediaError(f"{name!r:.200}: cannot be read: {error.strerror}", "missing") from None
    except (ValueError, RuntimeError):  # a NUL or what is no text; links that lead in a circle
        raise MediaError(f"{name!r:.200}: not the name of a file", "url") from None


def decode(data: bytes, header: Header | None = None) -> Image:
    """The upright image in ``data``, as the browser shows it.

    ``header``: what `look` found, where that is known.

    EXIF rotation is applied, what is transparent is white, 16 bits are scaled to 8, and of an
    animation it is the first frame.

    Raises:
        MediaError: the data is no image, is cut off, or has too many pixels.
    """
    return _decode(data, header or look(data), cv2.IMREAD_COLOR)


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
    header = header or look(data)
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


def look(data: bytes) -> Header:
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


def shown(text: str) -> str:
    """A URL for a message: without user, password and query, where tokens are."""
    scheme, separator, rest = text.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        text = scheme + separator + host.rpartition("@")[2] + slash + path
    text = text.partition("?")[0]
    return repr(text if len(text) <= 200 else text[:200] + "...")
