"""Media: what may be read, and that what is read is upright."""

from __future__ import annotations

import io
import os
import struct
import zlib
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ls_yolo import media
from ls_yolo.media import MediaError

STUDIO = "http://label-studio:8080"


class Uploads:
    """Label Studio's uploads, in memory; remembers which paths were asked for."""

    def __init__(self):
        self.asked = []

    def fetch(self, path, limit):
        self.asked.append(path)
        return b"upload"


def read(url, root, studio=None):
    return media.read(url, root, studio, STUDIO)


# Paths


@pytest.mark.parametrize(
    "name",
    [
        "demo/a.jpg",
        "demo/a b.jpg",
        "demo/a+b.jpg",
        "demo/100%.jpg",
        "demo/a&d=b.jpg",
        "demo/a#b?c.jpg",
        "demo/驾驶室 01.jpg",
        "demo/..hidden..jpg",
        "demo/%2e%2e.jpg",
    ],
)
def test_a_file_is_read_under_the_url_that_label_studio_writes_for_it(datasets, name):
    (datasets / name).write_bytes(name.encode())
    # As io_storages/localfiles/models.py of Label Studio makes it.
    assert read(f"/data/local-files/?d={quote(name)}", datasets) == name.encode()


@pytest.mark.parametrize(
    "url",
    [
        "/data/local-files?d=demo/a.jpg",
        "/data/local-files/?d=/demo/a.jpg",  # a leading slash means the root, as in Label Studio
        "/data/local-files/?d=demo//./x/../a.jpg",
        "/data/local-files/?d=demo%2Fa.jpg",
        "/data/local-files/?d=none.jpg&d=demo/a.jpg",  # the last counts, as in Label Studio
        f"{STUDIO}/data/local-files/?d=demo/a.jpg",
        "https://labels.example.com/data/local-files/?d=demo/a.jpg",  # LABEL_STUDIO_HOST
        "https://example.com/labels/data/local-files/?d=demo/a.jpg",
    ],
)
def test_other_spellings_of_a_local_file_are_the_same_file(datasets, url):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    assert read(url, datasets) == b"a"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "demo/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "%2e%2e%2fsecret",
        "link",
        "out/secret",
        "demo/../../datasets-2/secret",
    ],
)
def test_nothing_outside_the_root_is_read(datasets, name):
    (datasets.parent / "secret").write_bytes(b"secret")
    (datasets.parent / "datasets-2").mkdir()
    (datasets.parent / "datasets-2" / "secret").write_bytes(b"secret")
    (datasets / "link").symlink_to("../secret")
    (datasets / "out").symlink_to("..")
    with pytest.raises(MediaError, match="lies outside"):
        read(f"/data/local-files/?d={name}", datasets)


def test_an_absolute_path_is_one_below_the_root(datasets):
    with pytest.raises(MediaError, match="'/etc/passwd': lies outside"):
        read("/data/local-files/?d=/etc/passwd", datasets)
    (datasets / "etc").mkdir()
    (datasets / "etc" / "passwd").write_bytes(b"a")
    assert read("/data/local-files/?d=/etc/passwd", datasets) == b"a"


def test_links_inside_the_root_are_followed_and_the_root_may_be_one(datasets):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    (datasets / "link.jpg").symlink_to("demo/a.jpg")
    (datasets.parent / "root").symlink_to("datasets")
    assert read("/data/local-files/?d=link.jpg", datasets.parent / "root") == b"a"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/data/local-files/", "names no file"),
        ("/data/local-files/?d=", "names no file"),
        ("/data/local-files/?d=demo/none.jpg", "'demo/none.jpg': not found in .*; mount the same"),
        ("/data/local-files/?d=demo", "'demo': not a file"),
        ("/data/local-files/?d=pipe", "'pipe': not a file"),
        (
            "/data/local-files/?d=circle",
            "'circle': (not the name of a file|cannot be read: Too many levels)",
        ),
        ("/data/local-files/?d=a%00.jpg", "not the name of a file"),
        ("/data/local-files/?d=\ud800.jpg", "not the name of a file"),
        ("/data/local-files/?d=" + "a" * 300, "cannot be read: File name too long"),
        ("/data/local-files/?d=demo/a.jpg/b", "cannot be read: Not a directory"),
    ],
)
def test_what_is_no_file_is_said_to_be_so(datasets, url, message):
    (datasets / "demo/a.jpg").write_bytes(b"a")
    os.mkfifo(datasets / "pipe")
    (datasets / "circle").symlink_to("circle")
    with pytest.raises(MediaError, match=message):
        read(url, datasets)


def test_a_file_beyond_the_limit_is_not_read(datasets, monkeypatch):
    monkeypatch.setattr(media, "MAX_BYTES", 3)
    (datasets / "a").write_bytes(b"123")
    (datasets / "b").write_bytes(b"1234")
    assert read("/data/local-files/?d=a", datasets) == b"123"
    with pytest.raises(MediaError, match="larger than"):
        read("/data/local-files/?d=b", datasets)


@given(st.text())
def test_no_url_is_worse_than_refused(tmp_path_factory, url):
    root = tmp_path_factory.getbasetemp() / "empty"
    root.mkdir(exist_ok=True)
    for each in (url, f"/data/local-files/?d={url}"):
        with pytest.raises(MediaError):
            read(each, root)


# Uploads


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/data/upload/1/ab-c.jpg", "/data/upload/1/ab-c.jpg"),
        (f"{STUDIO}/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("/labels/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),  # LABEL_STUDIO_HOST with a path
        ("/data/upload/1/a%20b.jpg", "/data/upload/1/a b.jpg"),
        ("/data/upload/1/x/../a.jpg", "/data/upload/1/a.jpg"),
    ],
)
def test_an_upload_is_fetched_from_label_studio(tmp_path, url, path):
    studio = Uploads()
    assert read(url, tmp_path, studio) == b"upload"
    assert studio.asked == [path]


@pytest.mark.parametrize(
    "url",
    [
        "/data/upload/../../api/users",
        "/data/upload/%2e%2e/%2e%2e/api/users",
        "/data/upload/..",
        "/data/upload",
        "/api/users",
        "http://169.254.169.254/data/upload/1/a.jpg",
        "//example.com/data/upload/1/a.jpg",
        f"{STUDIO}.example.com/data/upload/1/a.jpg",
        "https://example.com/a.jpg",
        "file:///etc/passwd",
        "s3://bucket/a.jpg",
        "",
        "http://[",
    ],
)
def test_nothing_else_is_fetched(tmp_path, url):
    studio = Uploads()
    with pytest.raises(MediaError, match="not a URL"):
        read(url, tmp_path, studio)
    assert studio.asked == []


def test_an_upload_needs_a_token(tmp_path):
    with pytest.raises(MediaError, match="the backend has no token; set LABEL_STUDIO_URL and"):
        read("/data/upload/1/a.jpg", tmp_path)


def test_no_message_holds_a_token_or_a_password(tmp_path):
    url = "https://user:hunter2@bucket.example.com/a.jpg?X-Amz-Signature=hunter2&token=hunter2"
    with pytest.raises(MediaError) as caught:
        read(url, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "bucket.example.com/a.jpg" in str(caught.value)


# Pixels


def corners():
    """An image, 60 x 40, whose quarters are blue, green, red and white; blue, green, red order."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30], image[:20, 30:] = (255, 0, 0), (0, 255, 0)
    image[20:, :30], image[20:, 30:] = (0, 0, 255), (255, 255, 255)
    return image


# What undoes each EXIF orientation: the stored image to the upright one.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


def encode(image, kind, **more):
    out = io.BytesIO()
    quality = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    quality |= {"lossless": True} if kind == "WEBP" else {}
    image.save(out, kind, **quality, **more)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_exif_orientation_is_made_upright(kind, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    stored = PillowImage.fromarray(corners()[:, :, ::-1])
    image = media.decode(encode(stored, kind, exif=exif))
    wanted = UPRIGHT[orientation](corners())
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).max() < 20  # JPEG blurs the edges a little
    assert image.dtype == np.uint8


def test_channels_are_blue_green_red():
    picture = PillowImage.new("RGB", (4, 4), (10, 20, 30))
    assert media.decode(encode(picture, "PNG"))[0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("1", "PNG"),
        ("1", "TIFF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("RGB", "BMP"),
        ("RGB", "JPEG2000"),
    ],
)
def test_every_kind_of_image_becomes_three_channels_of_eight_bits(mode, kind):
    picture = PillowImage.fromarray(corners()[:, :, ::-1]).convert(mode)
    image = media.decode(encode(picture, kind))
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert image[35, 55].tolist() == pytest.approx([255, 255, 255], abs=5)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (8, 6, 4)])
def test_sixteen_bits_are_scaled_not_clipped(shape):
    done, data = cv2.imencode(".png", np.full(shape, 0x4020, np.uint16))
    assert done
    image = media.decode(data.tobytes())
    assert image.shape == (8, 6, 3)
    assert image[0, 0].tolist() == [0x40, 0x40, 0x40]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.01])
def test_an_image_that_is_cut_off_is_refused(kind, part):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    data = encode(PillowImage.fromarray(noise), kind)
    with pytest.raises(MediaError, match="not an image that can be decoded"):
        media.decode(data[: int(len(data) * part)])


@given(st.binary())
def test_what_is_no_image_is_refused(data):
    with pytest.raises(MediaError):
        media.decode(data)


def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(MediaError, match="the file is empty"):
        media.decode(b"")


@pytest.mark.parametrize("side", [14_000, 65_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(MediaError, match="more than 178956970 pixels"):
        media.decode(bomb)
