"""What the browser draws of an image is what the models see, for each format and orientation."""

from __future__ import annotations

import base64
import io
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from conftest import lacking
from ls_yolo.images import decode
from ls_yolo.images.limits import MediaError

pytestmark = pytest.mark.browser

BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRAW = """async ([data, type]) => {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  const image = new Image();
  const done = new Promise(resolve => { image.onload = image.onerror = resolve; });
  image.src = URL.createObjectURL(new Blob([bytes], {type}));
  await done;
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  if (!canvas.width || !canvas.height) return [0, 0, ''];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  let text = '';
  for (let at = 0; at < pixels.length; at += 32768)
    text += String.fromCharCode(...pixels.subarray(at, at + 32768));
  return [canvas.width, canvas.height, btoa(text)];
}"""
TYPES = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "AVIF": "avif", "GIF": "gif", "BMP": "bmp"}
Draw = Callable[[bytes, str], Any]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if BROWSER is None:
        lacking("no Chromium here: apt-get install chromium, or `make test` as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--disable-gpu", "--no-sandbox", "--no-first-run"]
        )
        yield browser.new_page()
        browser.close()


@pytest.fixture
def draw(page: Page) -> Draw:
    """(bytes, format) to what Chromium draws: blue, green, red, alpha; empty where nothing."""

    def draw(data: bytes, kind: str) -> Any:
        body = base64.b64encode(data).decode()
        width, height, text = page.evaluate(DRAW, [body, f"image/{TYPES[kind]}"])
        pixels = np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)
        return pixels[:, :, [2, 1, 0, 3]]

    return draw


def scene() -> Image.Image:
    """A picture, 300 x 200, that is nowhere the same when it is turned or mirrored."""
    small = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    return Image.fromarray(cv2.resize(small, (300, 200), interpolation=cv2.INTER_CUBIC))


def encode(kind: str, mode: str = "RGB", **more: Any) -> bytes:
    if kind in ("JPEG", "AVIF"):
        more = {"quality": 95, "subsampling": "4:4:4", **more}
    if kind == "WEBP":
        more = {"lossless": True, **more}
    if kind == "GIF":
        more = {"interlace": False, **more}
    file = io.BytesIO()
    scene().convert(mode).save(file, kind, **more)
    return file.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    tiff = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 1)
    return tiff + struct.pack(f"{order}HHIHHI", 0x0112, kind, count, orientation, 0, 0)


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation='
        b'"%d"/></rdf:RDF></x:xmpmeta>' % orientation
    )


def jpeg(block: bytes, before: bytes = b"\xff\xdb", start: bytes = b"Exif\0\0") -> bytes:
    """A JPEG with ``block`` as a segment for applications, before the last marker ``before``."""
    data = encode("JPEG")
    at = data.rindex(before)
    return (
        data[:at]
        + b"\xff\xe1"
        + struct.pack(">H", len(start + block) + 2)
        + start
        + block
        + (data[at:])
    )


def png(block: bytes, before: bytes = b"IDAT", mode: str = "RGB") -> bytes:
    data = encode("PNG", mode)
    at = data.index(before) - 4
    chunk = struct.pack(">I", len(block)) + b"eXIf" + block
    return data[:at] + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + block)) + data[at:]


def avif(orientation: int) -> bytes:
    """An AVIF whose EXIF says what the format's own rotation does not."""
    other = exif(orientation).replace(b"\x12\x01", b"\x11\x01")  # another tag, left alone
    return encode("AVIF", exif=other).replace(other, exif(orientation))


MADE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "jpeg": ("JPEG", lambda o: encode("JPEG", exif=exif(o))),
    "jpeg, progressive": ("JPEG", lambda o: encode("JPEG", exif=exif(o), progressive=True)),
    "jpeg, grey": ("JPEG", lambda o: encode("JPEG", "L", exif=exif(o))),
    "jpeg, big-endian": ("JPEG", lambda o: jpeg(exif(o, ">"))),
    "jpeg, just before the pixels": ("JPEG", lambda o: jpeg(exif(o), b"\xff\xda")),
    "jpeg, after the pixels": ("JPEG", lambda o: jpeg(exif(o), b"\xff\xd9")),
    "jpeg, 32 bits": ("JPEG", lambda o: jpeg(exif(o, kind=4))),
    "jpeg, two numbers": ("JPEG", lambda o: jpeg(exif(o, count=2))),
    "jpeg, XMP": ("JPEG", lambda o: jpeg(xmp(o), start=b"http://ns.adobe.com/xap/1.0/\0")),
    "png": ("PNG", lambda o: png(exif(o))),
    "png, big-endian": ("PNG", lambda o: png(exif(o, ">"))),
    "png, alpha": ("PNG", lambda o: png(exif(o), mode="RGBA")),
    "png, palette": ("PNG", lambda o: png(exif(o), mode="P")),
    "png, after the pixels": ("PNG", lambda o: png(exif(o), b"IEND")),
    "png, as in a JPEG": ("PNG", lambda o: png(b"Exif\0\0" + exif(o))),
    "png, 32 bits": ("PNG", lambda o: png(exif(o, kind=4))),
    "webp": ("WEBP", lambda o: encode("WEBP", exif=exif(o))),
    "webp, lossy": ("WEBP", lambda o: encode("WEBP", exif=exif(o), lossless=False, quality=95)),
    "webp, alpha": ("WEBP", lambda o: encode("WEBP", "RGBA", exif=exif(o))),
    "webp, XMP": ("WEBP", lambda o: encode("WEBP", xmp=xmp(o))),
    "avif": ("AVIF", lambda o: encode("AVIF", exif=exif(o))),
    "avif, EXIF alone": ("AVIF", avif),
    "gif": ("GIF", lambda o: encode("GIF", comment=exif(o))),
    "bmp": ("BMP", lambda o: encode("BMP") + exif(o)),
}


@pytest.mark.parametrize("made", MADE)
def test_every_orientation_is_decoded_as_chromium_draws_it(draw: Draw, made: str) -> None:
    kind, make = MADE[made]
    for orientation in range(1, 9):
        data = make(orientation)
        drawn = draw(data, kind)[:, :, :3]
        header = decode.read_header(data)
        image = decode.decode(data, header)
        assert image.shape == drawn.shape, orientation
        assert np.abs(image.astype(int) - drawn).mean() < 3, orientation
        near, size = decode.decode_near(data, 20, header)
        assert size == drawn.shape[1::-1], orientation
        smaller = cv2.resize(drawn, near.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(near.astype(int) - smaller).mean() < 5, orientation


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("PNG", {"mode": "RGBA"}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": False}),
        ("AVIF", {}),
    ],
)
def test_what_chromium_draws_of_an_image_that_is_cut_off_is_decoded(
    draw: Draw, kind: str, more: dict[str, Any]
) -> None:
    data = encode(kind, **more)
    for end in (-1, -2, -40, len(data) * 9 // 10, len(data) // 2, 24):
        drawn = draw(data[:end], kind)
        seen = drawn[:, :, 3] == 255 if drawn.size else np.zeros((1, 1), bool)
        if not seen.any():
            with pytest.raises(MediaError):
                decode.decode(data[:end])
            continue
        image = decode.decode(data[:end])
        assert image.shape[:2] == drawn.shape[:2], end
        off = np.abs(image.astype(int) - drawn[:, :, :3]).max(axis=2)[seen]
        # At the edge of what is there each library draws a few rows more or less.
        assert np.mean(off < 20) > 0.95, end


def test_chromium_shows_no_tiff(draw: Draw) -> None:
    assert draw(encode("TIFF"), "BMP").size == 0
