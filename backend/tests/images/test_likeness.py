"""Images that look alike are of one group."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ls_yolo.images import likeness
from ls_yolo.images.likeness import Clusters, cluster, perceptual_hash

HASHES = st.integers(0, 2**64 - 1)


@functools.cache
def scene(seed, width=320, height=240):
    """A picture of shades and things, another one for each seed."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        x, y = (int(random.integers(side)) for side in (width, height))
        colour = random.integers(0, 256, 3).tolist()
        cv2.rectangle(image, (x, y), (x + width // 6, y + height // 6), colour, cv2.FILLED)
    return image


def encoded(image, suffix, *options):
    good, data = cv2.imencode(suffix, image, options)
    assert good
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def apart(one, other):
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


@pytest.mark.parametrize(
    "again",
    [
        lambda image: encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 40),
        lambda image: encoded(image, ".png"),
        lambda image: cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA),
        lambda image: cv2.resize(image, (501, 377), interpolation=cv2.INTER_CUBIC),
        lambda image: cv2.resize(image, (1999, 1501), interpolation=cv2.INTER_NEAREST),
        lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=12),
        lambda image: cv2.GaussianBlur(image, (5, 5), 0),
    ],
    ids=["JPEG of quality 40", "PNG", "half the size", "larger", "large", "lighter", "blurred"],
)
@pytest.mark.parametrize("seed", range(20))
def test_an_image_that_is_made_anew_is_of_the_same_group(seed, again):
    clusters = Clusters()
    assert clusters.of(scene(seed)) == clusters.of(again(scene(seed)))


def test_different_images_are_of_groups_of_their_own():
    images = [scene(seed) for seed in range(60)]
    clusters = Clusters()
    assert len({clusters.of(image) for image in images}) >= 58
    far = [apart(one, other) for one in images for other in images if one is not other]
    assert np.quantile(far, 0.02) > 2 * likeness.RADIUS


@pytest.mark.parametrize("shade", [0, 40, 128, 255])
def test_noise_on_a_plain_image_makes_no_groups(shade):
    clusters = Clusters()
    found = set()
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(shade, 3, (240, 320, 3))
        image = np.clip(noise, 0, 255).astype(np.uint8)
        found.add(clusters.of(encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 60)))
    assert len(found) == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (3000, 2, 3), (31, 33, 3)])
def test_an_image_of_any_size_has_a_hash_of_64_bits(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    before = image.copy()
    assert 0 <= perceptual_hash(image) < 2**64
    assert np.array_equal(image, before)


@given(st.lists(HASHES, max_size=30))
def test_a_hash_has_one_number_however_often_it_comes_and_after_a_restart(hashes):
    clusters = Clusters()
    numbers = [clusters.of_hash(one) for one in hashes]
    assert [clusters.of_hash(one) for one in hashes] == numbers
    assert [Clusters(clusters.first).of_hash(one) for one in hashes] == numbers
    assert all(0 <= number < 2**31 for number in numbers)


@given(HASHES, st.sets(st.integers(0, 63), max_size=20))
def test_hashes_are_of_one_group_up_to_the_radius_and_no_further(first, bits):
    near = first ^ sum(1 << bit for bit in bits)
    clusters = Clusters()
    clusters.of_hash(first)
    inside = len(bits) <= likeness.RADIUS
    assert clusters.of_hash(near) == cluster(first if inside else near)
    assert len(clusters.first) == (1 if inside else 2)


def test_the_oldest_group_counts_so_that_a_later_one_that_is_nearer_takes_nothing_away():
    clusters = Clusters(most=2)
    for one in (0xFFFF0000, 0xFF):
        clusters.of_hash(one)
    assert clusters.of_hash(0x07) == cluster(0xFF)
    assert clusters.of_hash(0) == cluster(0)  # in the place of the oldest, before the other one
    assert clusters.of_hash(0x07) == cluster(0xFF)


def test_only_so_many_groups_are_remembered_and_the_oldest_go_first():
    clusters = Clusters(most=3)
    far = [0x0, 0xFFFF, 0xFFFF0000, 0xFFFF00000000, 0xFFFF000000000000]
    for one in far:
        clusters.of_hash(one)
    assert clusters.first.tolist() == far[2:]
    assert Clusters(clusters.first, most=2).first.tolist() == far[3:]


def test_groups_are_kept_in_a_file_and_a_damaged_one_is_none(tmp_path):
    path = tmp_path / "clusters"
    assert len(Clusters.load(path).first) == 0
    clusters = Clusters()
    for one in (1, 2**64 - 1, 0xFFFF0000):
        clusters.of_hash(one)
    clusters.save(path)
    assert Clusters.load(path).first.tolist() == clusters.first.tolist()
    path.write_bytes(path.read_bytes()[:-3])
    assert len(Clusters.load(path).first) == 0
