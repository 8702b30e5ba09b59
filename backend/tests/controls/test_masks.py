"""Masks: outlines, brush, bitmask and ellipses cover the pixels that the model says."""

from __future__ import annotations

import base64
import json

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.converter.brush import decode_rle

from backend.tests.controls.drawing import config, draw, faults, masks, tag
from ls_yolo.controls import outline
from ls_yolo.controls.outline import filled
from ls_yolo.labelstudio.label_config import LabelConfigError
from ls_yolo.results import Mask

POLYGON, BRUSH = config(tag("PolygonLabels")), config(tag("BrushLabels"))
BITMASK, ELLIPSE = config(tag("BitmaskLabels")), config(tag("EllipseLabels"))
PIXELS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
EDGE = st.integers(0, 5)


def disc(width, height, radii=(0.5, 0.5)):
    y, x = np.mgrid[:height, :width] + 0.5
    return ((x / width - 0.5) / radii[0]) ** 2 + ((y / height - 0.5) / radii[1]) ** 2 <= 1


def blob(seed, size):
    """A smooth shape, such as a model's masks are."""
    noise = np.random.default_rng(seed).random((size, size)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), size / 8) > 0.5


def whole(pixels, left, top, width, height):
    found = np.zeros((height, width), bool)
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found


def painted(region):
    """The pixels of a brush region, by Label Studio's own decoder."""
    shape = region["original_height"], region["original_width"], 4
    values = decode_rle(region["value"]["rle"]).reshape(shape)
    assert set(np.unique(values)) <= {0, 255}
    assert (values == values[..., :1]).all()
    return values[..., 3] == 255


def shown(region):
    """The pixels of a bitmask region, as a browser shows them."""
    head, _, data = region["value"]["imageDataURL"].partition(",")
    assert head == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape[:2] == (region["original_height"], region["original_width"])
    assert not picture[..., :3].any()
    assert set(np.unique(picture[..., 3])) <= {0, 255}
    return picture[..., 3] == 255


def inside(region):
    """The pixels of a polygon region."""
    width, height = region["original_width"], region["original_height"]
    points = np.array(region["value"]["points"]) / 100 * (width, height)
    return filled(points, width, height)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


# Brush and bitmask: equal, pixel by pixel


@pytest.mark.parametrize(("text", "read"), [(BRUSH, painted), (BITMASK, shown)])
@given(PIXELS, EDGE, EDGE, EDGE, EDGE)
def test_a_painted_mask_is_the_models_pixel_by_pixel(text, read, pixels, left, top, right, bottom):
    assume(pixels.any())
    height, width = pixels.shape[0] + top + bottom, pixels.shape[1] + left + right
    found = draw(text, masks(pixels, left=left, top=top), width, height)
    assert [faults(text, found), len(found)] == [[], 1]
    assert np.array_equal(read(found[0]), whole(pixels, left, top, width, height))


@pytest.mark.parametrize(
    "pixels",
    [
        np.ones((300, 400), bool),  # one run of 480,000 values
        np.ones((128, 128), bool),  # exactly the longest that a run may be
        np.indices((200, 300)).sum(axis=0) % 2 == 0,  # no run longer than a pixel
        disc(400, 300),
    ],
)
def test_runs_of_any_length_are_decoded_to_the_same_pixels(pixels):
    height, width = pixels.shape
    (region,) = draw(BRUSH, masks(pixels), width, height)
    assert np.array_equal(painted(region), pixels)


@pytest.mark.parametrize("text", [POLYGON, BRUSH, BITMASK, ELLIPSE])
def test_a_mask_without_a_pixel_has_no_region(text):
    assert draw(text, masks(np.zeros((4, 4)), np.zeros((0, 0))), 20, 10) == []


@pytest.mark.parametrize("text", [POLYGON, BRUSH, BITMASK, ELLIPSE])
def test_only_masks_that_are_drawn_are_made(text):
    result = masks(np.ones((4, 4)), index=7)  # a class without a label
    assert draw(text, result, 20, 10, names={0: "person", 7: "zebra"}) == []
    made = []
    result.masks[0] = lambda: made.append(1)
    draw(text, result, 20, 10, names={0: "person", 7: "zebra"})
    assert made == []


# Outlines


def test_a_box_of_pixels_has_its_four_corners_at_the_edges_of_the_pixels():
    (region,) = draw(POLYGON, masks(np.ones((20, 10)), left=5, top=30), 100, 100)
    assert sorted(region["value"]["points"]) == [[5, 30], [5, 50], [15, 30], [15, 50]]
    assert region["value"]["closed"] is True


@given(PIXELS)
def test_with_no_tolerance_the_outline_is_the_edge_of_the_pixels_with_holes_filled(pixels):
    assume(pixels.any())
    # Where no part is tiny: each pixel is as large as one that is.
    pixels = np.kron(pixels, np.ones((3, 3))).astype(bool)
    height, width = pixels.shape
    found = np.zeros_like(pixels)
    for points in outline.outlines(Mask(0, 0, pixels), tolerance=0):
        found |= filled(points, width, height)
    contours, _ = cv2.findContours(pixels.astype(np.uint8), cv2.RETR_EXTERNAL, 1)
    expected = cv2.drawContours(np.zeros((height, width), np.uint8), contours, -1, 1, cv2.FILLED)
    kept = outline.TINY[1] * expected.sum() <= 9
    assert not kept or np.array_equal(found, expected == 1)


@given(st.integers(0, 10_000), st.sampled_from([12, 40, 150]))
def test_an_outline_covers_the_mask_with_few_corners(seed, size):
    pixels = blob(seed, size)
    assume(pixels.any())
    found = draw(POLYGON, masks(pixels), size, size)
    assert faults(POLYGON, found) == []
    assert all(len(region["value"]["points"]) >= 3 for region in found)
    exact = [filled(p, size, size) for p in outline.outlines(Mask(0, 0, pixels), tolerance=0)]
    assert len(exact) == len(found)
    for region, edge in zip(found, exact, strict=True):
        assert iou(inside(region), edge) >= 0.97


@pytest.mark.parametrize("size", [8, 20, 60, 1000])
def test_a_disc_has_an_outline_of_its_own_size(size):
    pixels = disc(size, size)
    (region,) = draw(POLYGON, masks(pixels), size, size)
    points = np.array(region["value"]["points"], np.float32) / 100 * size
    assert cv2.contourArea(points) == pytest.approx(pixels.sum(), rel=0.03)
    assert len(points) <= 24 + size / 8


def test_a_greater_tolerance_leaves_fewer_corners_as_long_as_the_outline_covers_the_mask():
    def corners(tolerance):
        text = config(tag("PolygonLabels", f'model_polygon_tolerance="{tolerance}"'))
        (region,) = draw(text, masks(disc(1000, 1000)), 1000, 1000)
        assert iou(inside(region), disc(1000, 1000)) >= 0.97
        return len(region["value"]["points"])

    assert corners(500) <= corners(4) < corners(0.5) < corners(0)


@pytest.mark.parametrize("text", ["-1", "half", "nan", "inf"])
def test_a_tolerance_that_is_none_is_refused_by_name(text):
    with pytest.raises(LabelConfigError, match="model_polygon_tolerance of 'label': found "):
        draw(config(tag("PolygonLabels", f'model_polygon_tolerance="{text}"')), masks(), 9, 9)


def test_an_object_of_several_parts_has_a_region_for_each_but_none_for_specks():
    pixels = np.zeros((100, 100), bool)
    pixels[10:40, 10:40] = pixels[60:90, 60:90] = True
    pixels[5, 95] = True
    found = draw(POLYGON, masks(pixels), 100, 100)
    assert [region["value"]["polygonlabels"] for region in found] == [["person"]] * 2
    assert not any(inside(region)[5, 95] for region in found)


def test_an_object_that_is_nothing_but_a_speck_has_a_region():
    (region,) = draw(POLYGON, masks(np.ones((1, 1)), left=3, top=4), 10, 10)
    assert sorted(region["value"]["points"]) == [[30, 40], [30, 50], [40, 40], [40, 50]]


def test_holes_are_filled():
    pixels = np.ones((30, 30), bool)
    pixels[10:20, 10:20] = False
    (region,) = draw(POLYGON, masks(pixels), 30, 30)
    assert inside(region).all()


# Ellipses


@given(
    st.integers(100, 400),
    st.floats(10, 40),
    st.floats(10, 40),
    st.floats(0, 3.1),
)
def test_an_ellipse_is_found_again_with_its_centre_radii_and_direction(side, long, short, angle):
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    (region,) = draw(ELLIPSE, masks((u / long) ** 2 + (v / short) ** 2 <= 1), side, side)
    assert faults(ELLIPSE, [region]) == []
    value = region["value"]
    assert (value["x"], value["y"]) == (pytest.approx(50, abs=0.1), pytest.approx(50, abs=0.1))
    radii = sorted((value["radiusX"] * side / 100, value["radiusY"] * side / 100))
    assert radii == pytest.approx(sorted((long, short)), abs=0.3)
    if abs(long - short) > 3:
        longer = value["rotation"] + (90 if value["radiusY"] > value["radiusX"] else 0)
        expected = np.degrees(angle) + (90 if short > long else 0)
        assert abs((longer - expected + 90) % 180 - 90) < 2


def test_a_high_ellipse_in_a_wide_image_has_radii_that_label_studio_takes():
    """90 of 1000 pixels and 90 of 100 pixels are not the same share."""
    (region,) = draw(ELLIPSE, masks(disc(20, 98), left=400, top=1), 1000, 100)
    value = region["value"]
    assert value["radiusX"] <= 50
    assert value["radiusY"] <= 50
    turned = round(value["rotation"]) % 180
    x, y = value["radiusX"] * 10, value["radiusY"]
    assert (x, y) == pytest.approx((49, 10) if turned == 90 else (10, 49), abs=0.3)


@pytest.mark.parametrize("text", [POLYGON, BRUSH, BITMASK, ELLIPSE])
@given(PIXELS, EDGE, EDGE)
def test_whatever_the_mask_label_studio_takes_what_is_drawn(text, pixels, left, top):
    height, width = pixels.shape[0] + top, pixels.shape[1] + left
    found = draw(text, masks(pixels, left=left, top=top), width, height)
    json.dumps(found, allow_nan=False)
    assert faults(text, found) == []
    assert bool(found) == pixels.any()
    for region in found:
        value = region["value"]
        for place in value.get("points", []):
            assert all(0 <= edge <= 100 for edge in place)
        if "radiusX" in value:
            assert 0 < value["radiusX"] <= 50
            assert 0 < value["radiusY"] <= 50
