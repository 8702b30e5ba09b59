"""From a network's outputs to results: masks, turned boxes, key points, classes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from ls_yolo.engines import letterbox, nms, tasks
from ls_yolo.engines.base import EngineError
from ls_yolo.engines.letterbox import Input
from ls_yolo.engines.network import Network
from ls_yolo.engines.tasks.obb import regular
from ls_yolo.engines.tasks.segment import mask
from ls_yolo.engines.upsample import TILE, Grid
from ls_yolo.results import Classes, Keypoints, Masks, OrientedBoxes

SIDES = st.integers(1, 900)
SEEDS = st.integers(0, 1000)
SQUARE = letterbox.fit(64, 64, 64)


def task(name, **more):
    return tasks.find(Network({}, name, 64, 32, **more), "a.pt")


def result(name, outputs, geometry=SQUARE, conf=0.25, **more):
    return task(name, **more).result(outputs, geometry, conf, 0.7)


def test_a_network_tells_a_manifest_all_that_is_needed_to_read_its_outputs():
    network = Network({0: "a", 7: "b"}, "pose", 320, 64, 1, True, (17, 3), True)
    assert Network.read(network.manifest()) == network


def test_a_task_that_engines_do_not_do_is_named_with_those_that_they_do():
    with pytest.raises(EngineError, match=r"a\.pt: found a model for 'depth', expected .*segment"):
        task("depth")


# From a grid to pixels


def whole(grid, geometry):
    """Every pixel of the image, by OpenCV: the input's pixels first, then those of the image."""
    height, width = geometry.shape
    x = (np.arange(geometry.width) + 0.5) * geometry.inner_width / geometry.width + geometry.left
    y = (np.arange(geometry.height) + 0.5) * geometry.inner_height / geometry.height
    x = np.clip(x * grid.shape[1] / width - 0.5, 0, grid.shape[1] - 1)
    y = np.clip((y + geometry.top) * grid.shape[0] / height - 0.5, 0, grid.shape[0] - 1)
    rows = np.stack([np.interp(x, np.arange(grid.shape[1]), row) for row in grid])
    return np.stack([np.interp(y, np.arange(grid.shape[0]), c) for c in rows.T], axis=1)


@settings(deadline=None)
@given(SIDES, SIDES, SEEDS, st.sampled_from([32, 64, 160]))
def test_tiles_cover_a_part_of_the_image_with_the_values_that_the_whole_has(w, h, seed, imgsz):
    geometry = letterbox.fit(w, h, imgsz)
    random = np.random.default_rng(seed)
    grid = random.normal(size=[side // 4 for side in geometry.shape]).astype(np.float32)
    left, right = sorted(random.integers(0, w + 1, 2).tolist())
    top, bottom = sorted(random.integers(0, h + 1, 2).tolist())
    made = np.full((bottom - top, right - left), np.nan, np.float32)
    for tile in Grid(geometry, *grid.shape).tiles(left, top, right, bottom):
        place = made[tile.within(left, top)]
        assert max(place.shape) <= TILE
        assert np.isnan(place).all(), "no pixel twice"
        place[:] = tile.values(grid)
    assert np.allclose(made, whole(grid, geometry)[top:bottom, left:right], atol=1e-3)


def test_an_image_of_the_grids_own_size_is_the_grid():
    grid = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    (tile,) = Grid(letterbox.fit(32, 32, 32), 32, 32).tiles(0, 0, 32, 32)
    assert np.array_equal(tile.values(grid), grid)


# segment


@settings(deadline=None)
@given(st.integers(40, 900), st.integers(40, 900), st.floats(0.1, 0.3), SEEDS)
def test_a_mask_is_the_drawn_disc_inside_its_box(width, height, part, seed):
    geometry = letterbox.fit(width, height, 640)
    random = np.random.default_rng(seed)
    x, y = random.uniform(0.35, 0.65, 2) * (width, height)
    radius = part * min(width, height)
    # The distance to the edge, as the sum of two grids.
    rows, columns = (side // 4 for side in geometry.shape)
    centres = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1) * 4 + 2
    places = geometry.points(centres.astype(np.float32))
    edge = radius - np.hypot(places[..., 0] - x, places[..., 1] - y)
    prototypes = np.stack([edge / 2, edge]).astype(np.float32)
    box = np.array([x - radius, y - radius, x + radius, y + radius], np.float32)
    found = mask(box, np.array([1, 0.5], np.float32), prototypes, geometry)
    assert found.pixels.shape == (math.ceil(box[3]) - math.ceil(box[1]),
                                  math.ceil(box[2]) - math.ceil(box[0]))  # fmt: skip
    down, across = np.mgrid[: found.pixels.shape[0], : found.pixels.shape[1]] + 0.5
    wanted = np.hypot(across + found.left - x, down + found.top - y) < radius
    assert (found.pixels & wanted).sum() / max((found.pixels | wanted).sum(), 1) > 0.97 - 2 / radius


def segmented(score=0.9):
    """One object, of class 1 of 2, at 32, 32, of 16 x 16 pixels, with two prototypes."""
    output = np.array([[32, 32, 16, 16, 0.1, score, 1, 0]], np.float32).T
    prototypes = np.stack([np.ones((16, 16)), -np.ones((16, 16))]).astype(np.float32)
    return [output, prototypes]


def test_a_mask_outlives_the_outputs_that_it_was_made_of():
    outputs = segmented()
    found = result("segment", outputs)
    outputs[0][:], outputs[1][:] = 0, -1
    assert isinstance(found, Masks)
    (made,) = (make() for make in found.masks)
    assert (made.left, made.top, made.pixels.shape, made.pixels.all()) == (24, 24, (16, 16), True)
    assert found.boxes.classes.tolist() == [1]


def test_what_is_below_the_threshold_has_no_mask():
    found = result("segment", segmented(0.2))
    assert (found.masks, len(found.boxes.scores)) == ([], 0)


def test_an_object_at_the_right_edge_has_a_mask_that_may_be_empty():
    box = np.array([63.5, 10, 64, 20], np.float32)
    made = mask(box, np.ones(1, np.float32), np.ones((1, 16, 16), np.float32),
                letterbox.fit(64, 64, 64))  # fmt: skip
    assert made.pixels.shape == (10, 0)


# semantic


@settings(max_examples=30)
@given(SIDES, SIDES, SEEDS, st.integers(2, 30))
def test_an_area_is_where_its_class_is_highest_and_no_pixel_is_in_two(width, height, seed, classes):
    geometry = letterbox.fit(width, height, 64)
    logits = np.random.default_rng(seed).normal(
        size=(classes, *(side // 8 for side in geometry.shape))
    )
    found = result("semantic", [logits.astype(np.float32)], geometry, 0.0)
    count = np.zeros((height, width), int)
    best = np.stack([whole(grid, geometry) for grid in logits]).argmax(0)
    for index, make in zip(found.boxes.classes.tolist(), found.masks, strict=True):
        made = make()
        rows, columns = made.pixels.shape
        part = slice(made.top, made.top + rows), slice(made.left, made.left + columns)
        count[part] += made.pixels
        assert (made.pixels == (best[part] == index)).mean() > 0.999
    assert count.max() <= 1


def test_a_class_has_the_mean_of_its_probability_and_the_bounds_of_its_cells():
    logits = np.zeros((3, 8, 8), np.float32)
    logits[1], logits[2, 2:4, 5:8] = 1, 3
    found = result("semantic", [logits], conf=0.0)
    assert found.boxes.classes.tolist() == [2, 1]
    assert found.boxes.xyxy.tolist() == [[40, 16, 64, 32], [0, 0, 64, 64]]
    assert found.boxes.scores[0] == pytest.approx(math.exp(3) / (math.exp(3) + math.e + 1))
    assert found.boxes.scores[1] == pytest.approx(math.e / (math.e + 2))
    assert len(result("semantic", [logits], conf=0.6).masks) == 1


def test_with_one_class_there_is_something_where_it_is_above_nothing():
    logits = np.full((1, 8, 8), -2, np.float32)
    logits[0, 4:, 4:] = 2
    found = result("semantic", [logits])
    (made,) = (make() for make in found.masks)
    assert found.boxes.classes.tolist() == [0]
    assert found.boxes.scores[0] == pytest.approx(1 / (1 + math.exp(-2)))
    assert made.pixels.sum() == pytest.approx(32 * 32, rel=0.05)


# obb

TURNED = st.tuples(
    st.floats(10, 50), st.floats(10, 50), st.floats(1, 40), st.floats(1, 40), st.floats(-3, 3)
)


def corners(box):
    x, y, width, height, angle = (float(value) for value in box)
    return cv2.boxPoints(((x, y), (width, height), math.degrees(angle)))


@given(TURNED)
def test_a_regular_box_is_the_same_box_by_less_than_a_quarter(box):
    (made,) = regular(np.array([box], np.float32))
    assert 0 <= made[4] < math.pi / 2 + 1e-6
    for corner in corners(box):
        assert np.hypot(*(corners(made) - corner).T).min() < 0.01


@given(st.lists(TURNED, min_size=1, max_size=30), SEEDS)
def test_turned_boxes_hide_worse_ones_of_their_class_however_far_they_are_turned(rows, seed):
    random = np.random.default_rng(seed)
    boxes = np.array(rows, np.float32)
    scores = random.permutation(len(rows)).astype(np.float32)
    classes = random.integers(0, 2, len(rows))
    keep = nms.turned(boxes, scores, classes, 0.5)
    assert (np.diff(scores[keep]) < 0).all()
    assert keep[0] == scores.argmax()
    # Another form of the same boxes, and all of them twice, the second time worse.
    forms = regular(boxes)
    twice = nms.turned(np.concatenate([boxes, forms]), np.concatenate([scores, scores - 100]),
                       np.concatenate([classes, classes]), 0.5)  # fmt: skip
    assert twice.tolist() == keep.tolist()


def test_blocks_of_turned_boxes_are_compared_with_all_better_ones(monkeypatch):
    random = np.random.default_rng(0)
    boxes = np.concatenate([random.uniform(0, 300, (200, 2)), random.uniform(5, 90, (200, 3))], 1)
    arguments = boxes.astype(np.float32), random.random(200).astype(np.float32), np.zeros(200, int)
    whole = nms.turned(*arguments, 0.3)
    monkeypatch.setattr(nms, "BLOCK", 7)
    assert nms.turned(*arguments, 0.3).tolist() == whole.tolist()
    assert 1 < len(whole) < 200


def test_a_turned_box_is_in_pixels_of_the_image():
    output = np.array([[32, 24, 20, 10, 0.9, math.pi / 2 + 0.25]], np.float32).T
    found = result("obb", [output], letterbox.fit(128, 128, 64))
    assert isinstance(found, OrientedBoxes)
    assert np.allclose(found.xywhr, [[64, 48, 20, 40, 0.25]], atol=1e-5)


# pose


@pytest.mark.parametrize(("values", "scores"), [(3, [0.5, 0.25]), (2, [1, 1])])
def test_points_are_in_pixels_of_the_image_and_cut_off_at_its_edges(values, scores):
    points = [[16, 8, 0.5], [-5, 70, 0.25]]
    flat = [value for point in points for value in point[:values]]
    output = np.array([[32, 32, 16, 16, 0.9, *flat]], np.float32).T
    found = result("pose", [output], letterbox.fit(128, 128, 64), keypoints=(2, values))
    assert isinstance(found, Keypoints)
    assert found.xy.tolist() == [[[32, 16], [0, 128]]]
    assert found.scores.tolist() == [scores]
    assert found.boxes.xyxy.tolist() == [[48, 48, 80, 80]]


def test_no_body_has_no_points_but_their_number():
    found = result("pose", [np.zeros((4 + 1 + 51, 10), np.float32)], keypoints=(17, 3))
    assert (found.xy.shape, found.scores.shape) == ((0, 17, 2), (0, 17))


# Without doubles


def test_a_network_without_doubles_tells_the_rest_after_the_class():
    row = [16, 8, 48, 40, 0.9, 3]
    found = result("pose", [np.array([[*row, 1, 2]], np.float32)], keypoints=(1, 2), end2end=True)
    assert found.boxes.xyxy.tolist() == [row[:4]]
    assert (found.boxes.classes.tolist(), found.xy.tolist()) == ([3], [[[1, 2]]])
    found = result("obb", [np.array([[32, 32, 8, 4, 0.9, 2, 0.5]], np.float32)], end2end=True)
    assert np.allclose(found.xywhr, [[32, 32, 8, 4, 0.5]])


def test_a_transformer_tells_parts_of_the_image_which_fills_the_input():
    geometry = Input(64, way="stretch").fit(200, 100, 64)
    row = np.array([[0.5, 0.5, 0.5, 0.25, 0.9, 1], [0.5, 0.5, 1, 1, 0.1, 0]], np.float32)
    found = result("detect", [row], geometry, transformer=True)
    assert np.allclose(found.xyxy, [[50, 37.5, 150, 62.5]])


# classify


@settings(deadline=None)
@given(SIDES, SIDES, st.sampled_from([32, 64]), SEEDS)
def test_a_classifier_gets_the_middle_as_pillow_makes_it(width, height, side, seed):
    small = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    found = Input(side, way="crop").prepare(image)
    # What torchvision does: the shorter side becomes `side`, then the middle is cut out.
    short, long = sorted([width, height])
    longer = int(side * long / short)
    size = (longer, side) if width > height else (side, longer)
    resized = PillowImage.fromarray(image).resize(size, PillowImage.Resampling.BILINEAR)
    left, top = (round((edge - side) / 2) for edge in size)
    wanted = np.asarray(resized.crop((left, top, left + side, top + side)))
    assert found.pixels.shape == (side, side, 3)
    assert found.pixels.flags.writeable
    assert np.abs(found.pixels.astype(int) - wanted).mean() < 2
    assert found.geometry.shape == (side, side)


def test_a_smaller_copy_of_an_image_is_cropped_alike():
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(small, (1600, 1200), interpolation=cv2.INTER_CUBIC)
    takes = Input(64, way="crop")
    whole = takes.prepare(image)
    part = takes.prepare(cv2.resize(image, (400, 300), interpolation=cv2.INTER_AREA), None,
                         (1600, 1200))  # fmt: skip
    assert whole.geometry == part.geometry
    assert np.abs(whole.pixels.astype(int) - part.pixels).mean() < 2


def test_scores_of_classes_outlive_the_output():
    output = np.array([0.25, 0.75], np.float32)
    found = result("classify", [output])
    output[:] = 0
    assert isinstance(found, Classes)
    assert found.scores.tolist() == [0.25, 0.75]
