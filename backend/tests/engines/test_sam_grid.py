"""From the grid of a SAM to the pixels of an image."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.engines import sam_grid
from ls_yolo.engines.upsample import Grid
from ls_yolo.results import Mask

SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(SIZES)
def test_an_image_lies_in_the_upper_left_corner_and_touches_both_edges_of_a_side(size):
    where = sam_grid.geometry(*size)
    assert (where.left, where.top) == (0, 0)
    assert where.shape == (sam_grid.SIDE, sam_grid.SIDE)
    assert max(where.inner_width, where.inner_height) == sam_grid.SIDE


@given(SIZES, st.integers(0, 2**32 - 1), st.floats(-2, 2))
def test_what_is_made_is_all_that_is_above_zero_and_no_more_than_its_bounds(size, seed, middle):
    logits = np.random.default_rng(seed).normal(middle, 1, (16, 16)).astype(np.float32)
    where = sam_grid.geometry(*size)
    whole = np.zeros(size[::-1], bool)
    for tile in Grid(where, 16, 16).tiles(0, 0, *size):
        np.greater(tile.values(logits), 0, out=whole[tile.within(0, 0)])
    found = sam_grid.outlined(logits, where)
    if found is None:
        assert not whole.any()
        return
    height, width = found.pixels.shape
    same = np.zeros_like(whole)
    same[found.top : found.top + height, found.left : found.left + width] = found.pixels
    # At exactly zero, which of two ways to add up comes out above it is chance.
    assert (same ^ whole).sum() <= 2
    for edge in (found.pixels[0], found.pixels[-1], found.pixels[:, 0], found.pixels[:, -1]):
        assert edge.any()


def test_what_is_in_the_padding_is_no_object():
    logits = np.full((16, 16), -1, np.float32)
    logits[14:] = 1
    assert sam_grid.outlined(logits, sam_grid.geometry(200, 100)) is None


def test_a_mask_without_a_pixel_is_none():
    assert sam_grid.cut(Mask(3, 4, np.zeros((2, 2), bool))) is None
    found = sam_grid.cut(Mask(3, 4, np.array([[0, 0, 0], [0, 1, 1]], bool)))
    assert (found.left, found.top, found.pixels.shape) == (4, 5, (1, 2))
