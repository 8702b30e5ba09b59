"""Pixels: what is decoded is upright, of three channels, and as large as is said."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

import ls_yolo
from ls_yolo.images import decode, limits
from ls_yolo.images.limits import MediaError


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
