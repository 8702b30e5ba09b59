"""A task's URL to a decoded, upright image, and what may be read on the way."""

from __future__ import annotations

import contextlib
import io
import posixpath
import stat
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from ls_yolo.engines import Image

MAX_BYTES = 256 * 1024 * 1024
"""The largest file that is read, in bytes."""
MAX_PIXELS = 178_956_970
"""The largest image that is decoded, in pixels: what Pillow takes for a decompression bomb."""


class MediaError(ValueError):
    """An image cannot be had; the message says which, why and what to do. Never holds a token."""


class Fetcher(Protocol):
    """What fetches a path of Label Studio with a token."""

    def fetch(self, path: str, limit: int) -> bytes:
        """The bytes under ``path``; at most ``limit`` of them, else a `MediaError`."""


def read(url: str, root: Path, studio: Fetcher | None, studio_url: str) -> bytes:
    """The file that a task's ``url`` stands for.

    ``/data/local-files/?d=...`` is read from the folder ``root`` and never from outside it,
    symbolic links followed; ``/data/upload/...`` is fetched from Label Studio. Label Studio writes
    the address and path that it is published under before the former, the path before the latter.

    Raises:
        MediaError: the URL is of another kind, or the file is missing, outside, or too large.
        StudioError: Label Studio cannot be asked for an upload.
    """
    if studio_url and url.startswith(studio_url.rstrip("/") + "/"):
        url = url[len(studio_url.rstrip("/")) :]
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise MediaError(f"{_short(url)}: not a URL: {error}") from None
    # Normalised before it is compared: /data/upload/../../api/... is not an upload.
    path = posixpath.normpath(unquote(parts.path))
    if path.endswith("/data/local-files"):
        values = parse_qs(parts.query).get("d", [""])
        return _read_local(values[-1], root)
    if not parts.scheme and not parts.netloc:
        _, upload, name = path.partition("/data/upload/")
        if upload:
            if studio is None:
                raise MediaError(
                    f"{_short(url)}: an upload, but the backend has no token; "
                    "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
                )
            return studio.fetch(upload + name, MAX_BYTES)
    raise MediaError(
        f"{_short(url)}: not a URL that the backend reads; "
        "expected /data/local-files/?d=... or /data/upload/..."
    )


def _read_local(name: str, root: Path) -> bytes:
    if not name:
        raise MediaError("/data/local-files/?d=: names no file")
    root = root.resolve()
    outside = MediaError(f"{name!r:.200}: lies outside {root}; only files inside it are read")
    try:
        # As Label Studio does it: a leading slash means the root.
        path = (root / posixpath.normpath(name).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            raise outside
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise MediaError(f"{name!r:.200}: not a file")
        if found.st_size > MAX_BYTES:
            raise MediaError(f"{name!r:.200}: larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except MediaError:
        raise
    except FileNotFoundError:
        if name.startswith("/") and not Path(name).is_relative_to(root):
            raise outside from None
        raise MediaError(
            f"{name!r:.200}: not found in {root}; "
            "mount the same folder in Label Studio and in the backend"
        ) from None
    except OSError as error:
        raise MediaError(f"{name!r:.200}: cannot be read: {error.strerror}") from None
    except (ValueError, RuntimeError):  # a NUL or what is no text; links that lead in a circle
        raise MediaError(f"{name!r:.200}: not the name of a file") from None


def decode(data: bytes) -> Image:
    """The upright image in ``data``, as the browser shows it: EXIF rotation applied.

    Raises:
        MediaError: the data is no image, is cut off, or has too many pixels.
    """
    # OpenCV applies EXIF rotation in this mode and drops alpha; it is what ultralytics reads with.
    # WebP is the exception: there it knows of no rotation.
    if _check_size(data) != "WEBP":
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return image.astype(np.uint8, copy=False)
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            return np.ascontiguousarray(np.asarray(upright, dtype=np.uint8)[:, :, ::-1])
    except Exception as error:  # Pillow's plugins raise many kinds
        raise MediaError(f"not an image that can be decoded: {error}") from None


def _check_size(data: bytes) -> str | None:
    """Refuses a decompression bomb by its header, before any pixel is decoded.

    Returns the format as Pillow calls it, None where Pillow does not know it.
    """
    if not data:
        raise MediaError("the file is empty")
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            width, height, kind = *picture.size, picture.format
    except PillowImage.DecompressionBombError:
        raise MediaError(f"more than {MAX_PIXELS} pixels") from None
    except Exception:
        return None  # Pillow does not know the format; OpenCV has limits of its own
    if width * height > MAX_PIXELS:
        raise MediaError(f"{width} x {height} is more than {MAX_PIXELS} pixels")
    return kind


def _short(text: str) -> str:
    """``text`` for a message: without user, password and query, where tokens are."""
    scheme, separator, rest = text.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        text = scheme + separator + host.rpartition("@")[2] + slash + path
    text = text.partition("?")[0]
    return repr(text if len(text) <= 200 else text[:200] + "...")
