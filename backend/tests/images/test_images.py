"""Media: what may be read, and that what is read is upright."""

from __future__ import annotations

import base64
import contextvars
import io
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

import ls_yolo
from ls_yolo.images import decode, limits, source
from ls_yolo.images.limits import MediaError

STUDIO = "http://label-studio:8080"
PUBLIC = ["http://127.0.0.1:8080", "http://localhost:8080", "https://labels.example.com/labels"]


class Uploads:
    """Label Studio's files, in memory; remembers which paths and queries were asked for.

    ``elsewhere``: where it sends to for a storage's file.
    """

    def __init__(self, elsewhere=""):
        self.asked = []
        self.elsewhere = elsewhere

    def fetch(self, path, limit, query=""):
        self.asked.append(path + (f"?{query}" if query else ""))
        if query and self.elsewhere:
            raise source.Redirect(self.elsewhere)
        return b"upload"


class Web:
    """The web, in memory; remembers which addresses were asked for."""

    def __init__(self):
        self.asked = []

    def fetch(self, url, limit):
        self.asked.append(url)
        return b"web"


def read(url, root, studio=None, **more):
    return source.read(url, root, studio, [STUDIO, *PUBLIC], **more)


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
    monkeypatch.setattr(source, "MAX_BYTES", 3)
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
        *((f"{address}/data/upload/1/a.jpg", "/data/upload/1/a.jpg") for address in PUBLIC),
        ("HTTPS://LABELS.example.com:443/labels/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("http://user:password@localhost:8080/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
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
        "http://localhost:8081/data/upload/1/a.jpg",
        "https://localhost:8080/data/upload/1/a.jpg",
        "http://localhost:8080@example.com/data/upload/1/a.jpg",
        "https://labels.example.com/data/upload/1/a.jpg",
        "http://localhost:8080/data/upload/../../api/users",
        "https://example.com/a.jpg",
        "file:///etc/passwd",
        "ftp://example.com/a.jpg",
        "/tasks/1/resolve/",
        "/tasks/1/resolve/x?fileuri=a",
        "/tasks/1/resolve/../../../api/users?fileuri=a",
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
    with pytest.raises(MediaError, match="backend has no token; set LABEL_STUDIO_URL and"):
        read("/data/upload/1/a.jpg", tmp_path)


def test_no_message_holds_a_token_or_a_password(tmp_path):
    url = "https://user:hunter2@bucket.example.com/a.jpg?X-Amz-Signature=hunter2&token=hunter2"
    with pytest.raises(MediaError) as caught:
        read(url, tmp_path)
    assert "hunter2" not in str(caught.value)
    assert "bucket.example.com/a.jpg" in str(caught.value)


# Storages, the web, data URLs


def coded(url):
    return quote(base64.urlsafe_b64encode(url.encode()).decode(), safe="")


@pytest.mark.parametrize(
    "url",
    [
        "/tasks/7/resolve/?fileuri={}",
        "/tasks/7/presign/?fileuri={}",
        "/projects/7/resolve/?fileuri={}",
        "/projects/7/presign/?fileuri={}",
    ],
)
@pytest.mark.parametrize("before", ["", STUDIO, "/labels", "https://labels.example.com/labels"])
def test_a_file_of_a_storage_is_fetched_under_label_studios_address_for_it(tmp_path, url, before):
    studio, web = Uploads(), Web()
    url = url.format(coded("s3://bucket/a.jpg"))
    assert read(before + url, tmp_path, studio, task_id=7, web=web, project_id=7) == b"upload"
    assert studio.asked == [url]
    assert web.asked == []


@pytest.mark.parametrize("before", ["", STUDIO, *PUBLIC, "https://elsewhere.example.com"])
@pytest.mark.parametrize("kind", ["tasks", "projects"])
@pytest.mark.parametrize(
    "more", [{}, {"task_id": 8, "project_id": 8}, {"task_id": "7/../8"}, {"task_id": None}]
)
def test_a_file_of_another_task_or_project_is_not_fetched(tmp_path, before, kind, more):
    studio, web = Uploads(), Web()
    url = f"{before}/{kind}/7/resolve/?fileuri={coded('s3://bucket/a.jpg')}"
    with pytest.raises(MediaError, match=f"names a file of {kind[:-1]} 7; expected one of the"):
        read(url, tmp_path, studio, web=web, **more)
    assert (studio.asked, web.asked) == ([], [])


@pytest.mark.parametrize(
    "url", ["s3://bucket/a b.jpg", "gs://bucket/驾.jpg", "azure-blob://box/a?b&c.jpg", "S3://b/a"]
)
def test_a_file_of_a_storage_is_asked_for_with_its_task(tmp_path, url):
    studio = Uploads()
    assert read(url, tmp_path, studio, task_id=12) == b"upload"
    # As io_storages/base_models.py of Label Studio makes it.
    assert studio.asked == [f"/tasks/12/resolve/?fileuri={coded(url)}"]


@pytest.mark.parametrize("task_id", [None, "1", "1/../../api/users", True])
def test_without_the_tasks_id_a_storage_cannot_be_asked(tmp_path, task_id):
    studio = Uploads()
    with pytest.raises(MediaError, match="for a stored task only"):
        read("s3://bucket/a.jpg", tmp_path, studio, task_id=task_id)
    assert studio.asked == []


def test_where_a_storage_signs_urls_the_file_is_fetched_there_without_a_token(tmp_path):
    studio, web = Uploads("https://bucket.example.com/a.jpg?X-Amz-Signature=hunter2"), Web()
    assert read("s3://bucket/a.jpg", tmp_path, studio, task_id=1, web=web) == b"web"
    assert web.asked == ["https://bucket.example.com/a.jpg?X-Amz-Signature=hunter2"]
    with pytest.raises(MediaError, match="switch pre-signed URLs off") as caught:
        read("s3://bucket/a.jpg", tmp_path, studio, task_id=1)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/a.jpg?x=1", "HTTP://example.com/data/upload/1/a.jpg"]
)
def test_an_address_of_the_web_is_fetched_there(tmp_path, url):
    studio, web = Uploads(), Web()
    assert read(url, tmp_path, studio, web=web) == b"web"
    assert web.asked == [url]
    assert studio.asked == []


def test_what_else_a_proxy_has_beside_label_studio_is_fetched_without_a_token(tmp_path):
    studio, web = Uploads(), Web()
    url = f"{PUBLIC[2]}/photos/a.jpg"
    assert read(url, tmp_path, studio, web=web) == b"web"
    assert (studio.asked, web.asked) == ([], [url])
    assert source.origin(url, [STUDIO, *PUBLIC]) == "web"
    assert source.origin(f"{PUBLIC[2]}/data/upload/1/a.jpg", [STUDIO, *PUBLIC]) == "studio"


def test_label_studios_own_api_is_not_read_as_an_image(tmp_path):
    studio, web = Uploads(), Web()
    for path in ("/api/users", "/data/upload/../../api/users", "/tasks/1/resolve/../../../api"):
        with pytest.raises(MediaError, match="not a URL that the backend reads"):
            read(STUDIO + path, tmp_path, studio, web=web)
    assert (studio.asked, web.asked) == ([], [])


@given(st.binary(), st.sampled_from(["image/png", "", "image/jpeg;charset=x"]), st.booleans())
def test_a_data_url_holds_the_file(tmp_path_factory, data, kind, plain):
    body = quote(data) if plain else base64.b64encode(data).decode()
    url = f"data:{kind},{body}" if plain else f"data:{kind};base64,{body}"
    assert read(url, tmp_path_factory.getbasetemp()) == data


@pytest.mark.parametrize("url", ["data:image/png;base64", "data:;base64,A", "data:;base64,%zz驾"])
def test_a_damaged_data_url_is_refused_and_not_shown_whole(tmp_path, url):
    with pytest.raises(MediaError):
        decode.decode(read(url, tmp_path))


def test_a_data_url_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_BYTES", 300)
    assert len(read("data:;base64," + base64.b64encode(b"0" * 300).decode(), tmp_path)) == 300
    with pytest.raises(MediaError, match="larger than") as caught:
        read("data:;base64," + base64.b64encode(b"0" * 600).decode(), tmp_path)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/data/local-files/?d=none.jpg", "media_missing"),
        ("/data/local-files/?d=../x", "media_forbidden"),
        ("ftp://a/b", "media_url"),
        ("data:,", "media_damaged"),
    ],
)
def test_an_error_has_a_kind_for_metrics(datasets, url, kind):
    with pytest.raises(MediaError) as caught:
        decode.decode(read(url, datasets))
    assert caught.value.kind == kind


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
    quality = {"quality": 95, "subsampling": "4:4:4"} if kind in ("JPEG", "AVIF") else {}
    quality |= {"lossless": True} if kind == "WEBP" else {}
    image.save(out, kind, **quality, **more)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_exif_orientation_is_applied_where_chromium_does_so(kind, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    stored = PillowImage.fromarray(corners()[:, :, ::-1])
    image = decode.decode(encode(stored, kind, exif=exif))
    # Not in WebP: tests/integration/test_browser_images.py holds this against Chromium.
    wanted = UPRIGHT[1 if kind == "WEBP" else orientation](corners())
    assert image.shape == wanted.shape
    assert np.abs(image.astype(int) - wanted).max() < 20  # JPEG blurs the edges a little
    assert image.dtype == np.uint8


def test_channels_are_blue_green_red():
    picture = PillowImage.new("RGB", (4, 4), (10, 20, 30))
    assert decode.decode(encode(picture, "PNG"))[0, 0].tolist() == [30, 20, 10]


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
    image = decode.decode(encode(picture, kind))
    assert image.shape == (40, 60, 3)
    assert image.dtype == np.uint8
    assert image[35, 55].tolist() == pytest.approx([255, 255, 255], abs=5)


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3), (8, 6, 4)])
def test_sixteen_bits_are_scaled_not_clipped(shape, kind):
    pixels = np.full(shape, 0x4020, np.uint16)
    if shape[2:] == (4,):
        pixels[:, :, 3] = 0xFFFF
    done, data = cv2.imencode(kind, pixels)
    assert done
    image = decode.decode(data.tobytes())
    assert image.shape == (8, 6, 3)
    assert image[0, 0].tolist() == [0x40, 0x40, 0x40]


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("RGBA", "WEBP"), ("LA", "PNG")])
def test_what_is_transparent_is_white_as_on_the_page(mode, kind):
    picture = PillowImage.new("RGBA", (60, 40), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 30, 40))
    picture.paste((0, 0, 0, 128), (30, 0, 60, 20))
    image = decode.decode(encode(picture.convert(mode), kind))
    assert image[30, 10].tolist() == [0, 0, 0]
    assert image[30, 50].tolist() == [255, 255, 255]
    assert image[10, 50].tolist() == pytest.approx([127, 127, 127], abs=2)


def test_a_transparent_colour_of_a_palette_is_white():
    picture = PillowImage.new("P", (4, 4), 1)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    for kind in ("PNG", "GIF"):
        image = decode.decode(encode(picture, kind, transparency=1))
        assert image[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_the_first_counts(kind):
    frames = [PillowImage.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode.decode(data)[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("part", [0.9, 0.5])
def test_of_an_image_that_is_cut_off_what_is_there_is_decoded_and_the_log_warns(kind, part, caplog):
    more = {"interlace": False} if kind == "GIF" else {}
    data = encode(PillowImage.fromarray(scene(300, 200)[:, :, ::-1]), kind, **more)
    whole = decode.decode(data)
    assert not caplog.records
    image = decode.decode(data[: int(len(data) * part)], name="task 7")
    assert image.shape == whole.shape
    rows = int(200 * part / 4)
    assert np.array_equal(image[:rows], whole[:rows])
    assert not np.array_equal(image, whole)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("task 7: image file is truncated")
    assert record.getMessage().endswith("predicted on what is there, as the browser shows it")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_marker_is_whole(progressive, missing, caplog):
    picture = PillowImage.fromarray(scene(1200, 800)[:, :, ::-1])
    data = encode(picture, "JPEG", progressive=progressive)
    assert np.array_equal(decode.decode(data[:-missing]), decode.decode(data))
    _, size = decode.decode_near(data[:-missing], 200)
    assert size == (1200, 800)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_that_is_cut_off_is_turned_as_a_whole_one(kind, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    picture = PillowImage.fromarray(scene(300, 200)[:, :, ::-1])
    whole = encode(picture, kind, exif=exif)
    image = UPRIGHT[orientation](decode.decode(encode(picture, kind)))
    cut = decode.decode(whole[: int(len(whole) * 0.9)])
    assert cut.shape == image.shape
    assert np.median(np.abs(cut.astype(int) - image)) == 0


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF"])
def test_what_the_browser_shows_nothing_of_when_it_is_cut_off_is_refused(kind, part):
    data = encode(PillowImage.fromarray(scene(300, 200)), kind)
    with pytest.raises(MediaError, match="not an image that can be decoded"):
        decode.decode(data[: int(len(data) * part)])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP"])
def test_a_header_that_is_cut_off_is_refused(kind):
    data = encode(PillowImage.fromarray(scene(300, 200)), kind)
    with pytest.raises(MediaError, match="not an image that can be decoded"):
        decode.decode(data[:24])


def exif_block(orientation, order="<", kind=3, count=1):
    tiff = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, 1)
    return tiff + struct.pack(f"{order}HHIHHI", 0x0112, kind, count, orientation, 0, 0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "count", "value", "orientation"),
    [(3, 1, 6, 6), (4, 1, 6, 1), (1, 1, 6, 1), (3, 2, 6, 1), (3, 1, 0, 1), (3, 1, 9, 1)],
)
def test_an_orientation_counts_as_one_number_of_16_bits_from_1_to_8(
    order, kind, count, value, orientation
):
    picture = PillowImage.fromarray(corners())
    data = encode(picture, "PNG", exif=exif_block(value, order, kind, count))
    assert decode.read_header(data).orientation == orientation


@given(st.binary(max_size=60))
def test_a_damaged_exif_block_turns_nothing_and_spoils_nothing(block):
    data = encode(PillowImage.fromarray(corners()), "PNG", exif=b"II*\0" + block)
    assert decode.decode(data).shape in ((40, 60, 3), (60, 40, 3))


@given(st.binary())
def test_what_is_no_image_is_refused(data):
    with pytest.raises(MediaError):
        decode.decode(data)


def test_what_is_no_image_is_said_to_be_so_though_another_package_might_have_known_it(monkeypatch):
    def look(file):  # as ultralytics makes Pillow do it, where that package is not installed
        raise ModuleNotFoundError("No module named 'pi_heif'")

    for _ in range(2):
        with pytest.raises(MediaError, match="neither OpenCV nor Pillow knows its format"):
            decode.decode(b"no image")
        monkeypatch.setattr(decode.PillowImage, "open", look)


def test_an_empty_file_is_said_to_be_empty():
    with pytest.raises(MediaError, match="the file is empty"):
        decode.decode(b"")


@pytest.mark.parametrize("side", [14_000, 65_000])
def test_a_decompression_bomb_is_refused_by_its_header(side):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(MediaError, match="more than 178956970 pixels"):
        decode.decode(bomb)


PEAK = """
import sys
from pathlib import Path
from ls_yolo.images import decode, limits
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
for name in 2 * sys.argv[1:]:  # at first, libraries are loaded
    data = Path(name).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    image = decode.decode(data)
    print((status("VmHWM") - before) / decode.read_header(data).memory)
    del image
"""


def test_decoding_takes_no_more_memory_than_is_counted_for_it(tmp_path):
    kinds = [("RGBA", "PNG"), ("LA", "PNG"), ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "TIFF")]
    kinds += [("RGB", "AVIF"), ("RGBA", "JPEG2000"), ("P", "GIF"), ("RGB", "JPEG"), ("F", "TIFF")]
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    names = []
    for mode, kind in kinds:
        names.append(tmp_path / f"{mode}.{kind}")
        more = {"exif": exif} if kind in ("PNG", "WEBP", "JPEG") else {}
        names[-1].write_bytes(encode(PillowImage.new(mode, (2000, 2000)), kind, **more))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *names],
        env={**os.environ, "PYTHONPATH": str(Path(ls_yolo.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    parts = map(float, done.stdout.split()[len(names) :])
    found = dict(zip([name.name for name in names], parts, strict=True))
    assert max(found.values()) < 1.1, found


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGB", "TGA")])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200))
@settings(max_examples=30)
def test_an_image_is_the_same_in_strips_of_any_height(mode, kind, width, height, strip):
    rng = np.random.default_rng(width * height)
    pixels = rng.integers(0, 256, (height, width, len(mode)), np.uint8)
    data = encode(PillowImage.fromarray(pixels), kind)
    whole = decode.decode(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "STRIP", strip)
        assert np.array_equal(decode.decode(data), whole)


def test_what_is_decoded_at_a_time_stays_within_the_memory():
    memory, used, most = limits.Memory(10), 0, []
    lock = threading.Lock()

    def decode(amount):
        nonlocal used
        with memory.taken(amount):
            with lock:
                used += min(amount, 10)
                most.append(used)
            time.sleep(0.002)
            with lock:
                used -= min(amount, 10)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(decode, [3, 1, 4, 99, 5, 9, 2, 6, 10, 5, 3, 5] * 10))
    assert max(most) == 10
    with memory.taken(10):
        pass  # all of it is free again


def test_a_large_image_is_not_passed_by_small_ones_for_ever():
    memory, done = limits.Memory(10), threading.Event()
    ready = threading.Event()

    def small():
        while not done.is_set():
            with memory.taken(3):
                ready.set()
                time.sleep(0.002)

    def large():
        assert ready.wait(30)
        with memory.taken(10):
            done.set()

    with ThreadPoolExecutor(5) as pool:
        jobs = [pool.submit(small) for _ in range(4)] + [pool.submit(large)]
        assert done.wait(30)
        for job in jobs:
            job.result()


def test_of_large_files_a_few_are_in_memory_at_a_time(monkeypatch):
    monkeypatch.setattr(limits, "LARGE", 10)
    soon = time.monotonic() + 0.2
    for _ in range(2):
        with limits.holding():
            assert limits.read_limited([b"0" * 8] * 3, 100, "a", time.monotonic() + 30) == b"0" * 24
            for _ in range(limits.LARGE_FILES - 1):
                with ThreadPoolExecutor(1) as pool, limits.holding():
                    context = contextvars.copy_context().run
                    job = pool.submit(
                        context, limits.read_limited, [b"0" * 11], 100, "b", soon + 30
                    )
                    assert len(job.result()) == 11
                    with ThreadPoolExecutor(1) as another, limits.holding():
                        context = contextvars.copy_context().run
                        assert (
                            limits.read_limited([b"0" * 10], 100, "small", soon + 30) == b"0" * 10
                        )
                        job = another.submit(
                            context, limits.read_limited, [b"0" * 11], 100, "c", soon
                        )
                        with pytest.raises(TimeoutError):
                            job.result()
        soon = time.monotonic() + 0.2


def test_a_file_that_is_gathered_is_limited_in_size_and_time():
    assert limits.read_limited([], 3, "a", time.monotonic() + 30) == b""
    assert limits.read_limited([b"ab", b"c"], 3, "a", time.monotonic() + 30) == b"abc"
    with pytest.raises(MediaError, match="a: larger than"):
        limits.read_limited([b"ab", b"cd"], 3, "a", time.monotonic() + 30)
    with pytest.raises(TimeoutError):
        limits.read_limited([b"ab", b"c"], 3, "a", time.monotonic() - 1)


def test_a_bomb_of_a_format_that_only_opencv_knows_is_refused_too():
    # In a process of its own: OpenCV reads its limit when it is loaded.
    program = """
import ls_yolo
from ls_yolo.images import decode, limits
try:
    decode.decode(b"#?RADIANCE\\nFORMAT=32-bit_rle_rgbe\\n\\n-Y 30000 +X 30000\\n" + b"0" * 99)
except limits.MediaError as error:
    print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(ls_yolo.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "refused\n", done.stderr
    assert str(limits.MAX_PIXELS) in Path(ls_yolo.__file__).read_text()


# Near the size that is needed


def scene(width, height):
    small = np.random.default_rng(0).integers(0, 255, (height // 50, width // 50, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("width", "height", "divisor"),
    [
        (1500, 1000, 1),
        (599, 400, 1),
        (1200, 800, 2),
        (1399, 1003, 2),
        (1003, 1399, 2),
        (2403, 1200, 4),
        (4800, 3000, 8),
        (4801, 3000, 4),  # eighths would reach over the edge by 7 pixels
        (9000, 100, 4),
        (4800, 99, 1),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_decoded_smaller_and_its_full_size_is_known(
    width, height, divisor, orientation
):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    longest = {1: 1000, 2: 200, 4: 200, 8: 200}[divisor]
    picture = PillowImage.fromarray(scene(width, height)[:, :, ::-1])
    data = encode(picture, "JPEG", exif=exif)
    whole = decode.decode(data)
    image, size = decode.decode_near(data, longest)
    assert size == whole.shape[1::-1]
    assert image.shape[:2] == tuple(-(-side // divisor) for side in whole.shape[:2])
    assert max(image.shape) >= min(max(whole.shape), decode.SPARE * longest)
    # The same picture, and nowhere else.
    again = cv2.resize(whole, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - image).mean() < 3


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.sampled_from([1, 3, 6, 8]))
@settings(max_examples=50)
def test_the_full_size_is_right_whatever_the_shape(width, height, longest, orientation):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    data = encode(PillowImage.new("L", (width, height)), "JPEG", exif=exif)
    image, size = decode.decode_near(data, longest)
    assert size == ((height, width) if orientation >= 5 else (width, height))
    assert max(image.shape) >= min(max(size), decode.SPARE * longest)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_what_is_no_jpeg_is_decoded_whole(kind):
    data = encode(PillowImage.new("RGB", (900, 700)), kind)
    image, size = decode.decode_near(data, 10)
    assert (image.shape, size) == ((700, 900, 3), (900, 700))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
def test_a_large_jpeg_that_is_cut_off_keeps_its_size(part, orientation, caplog):
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    data = encode(PillowImage.fromarray(scene(3000, 2000)), "JPEG", exif=exif)
    _, size = decode.decode_near(data[: int(len(data) * part)], 200)
    assert size == ((3000, 2000) if orientation == 1 else (2000, 3000))
    assert "truncated" in caplog.text
