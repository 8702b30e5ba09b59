"""A task's URL to a decoded, upright image, and what may be read on the way."""

from __future__ import annotations

import io
import posixpath
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

    ``/data/local-files/?d=...`` is read from the folder ``root`` and never from outside it, symbolic
    links followed; ``/data/upload/...`` is fetched from Label Studio.

    Raises:
        MediaError: the URL is of another kind, or the file is missing, outside, or too large.
    """
    if studio_url and url.startswith(studio_url.rstrip("/") + "/"):
        url = url[len(studio_url.rstrip("/")) :]
    parts = urlsplit(url)
    # Normalised before it is compared: /data/upload/../../api/... is not an upload.
    path = posixpath.normpath(unquote(parts.path))
    if not parts.scheme and not parts.netloc:
        if path == "/data/local-files":
            values = parse_qs(parts.query).get("d", [""])
            return _read_local(values[0], root)
        if path.startswith("/data/upload/"):
            if studio is None:
                raise MediaError(
                    f"{_short(url)}: an upload, but the backend has no token; set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
                )
            return studio.fetch(path, MAX_BYTES)
    raise MediaError(
        f"{_short(url)}: not a URL that the backend reads; expected /data/local-files/?d=... or /data/upload/..."
    )


def _read_local(name: str, root: Path) -> bytes:
    if not name or "\0" in name:
        raise MediaError(f"/data/local-files/?d={_short(name)}: names no file")
    root = root.resolve()
    # Label Studio's storage writes the path relative to the root; an absolute one must lie inside.
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise MediaError(f"{_short(name)}: lies outside {root}; only files inside it are read")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{_short(name)}: larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()
    except FileNotFoundError:
        raise MediaError(
            f"{_short(name)}: not found in {root}; mount the same folder in Label Studio and in the backend"
        ) from None
    except OSError as error:
        raise MediaError(f"{_short(name)}: cannot be read: {error.strerror}") from None


def decode(data: bytes) -> Image:
    """The upright image in ``data``, as the browser shows it: EXIF rotation applied.

    Raises:
        MediaError: the data is no image, is cut off, or has too many pixels.
    """
    _check_size(data)
    # OpenCV applies EXIF rotation in this mode and drops alpha; it is what ultralytics reads with.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is not None:
        return image.astype(np.uint8, copy=False)
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
            return np.ascontiguousarray(np.asarray(upright, dtype=np.uint8)[:, :, ::-1])
    except Exception as error:  # Pillow's plugins raise many kinds
        raise MediaError(f"not an image that can be decoded: {error}") from None


def _check_size(data: bytes) -> None:
    """Refuses a decompression bomb by its header, before any pixel is decoded."""
    if not data:
        raise MediaError("the file is empty")
    try:
        with PillowImage.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except PillowImage.DecompressionBombError:
        raise MediaError(f"more than {MAX_PIXELS} pixels") from None
    except Exception:
        return  # Pillow does not know the format; OpenCV has limits of its own
    if width * height > MAX_PIXELS:
        raise MediaError(f"{width} x {height} is more than {MAX_PIXELS} pixels")


def _short(text: str) -> str:
    text = text.split("?token=")[0]
    return repr(text if len(text) <= 200 else text[:200] + "...")
