"""Versions, and the file of minimums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import versions
from lib.cli import UserError


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Docker Compose version v2.40.3", (2, 40, 3)),
        ("Docker Compose version 2.26.1-4", (2, 26, 1)),
        ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", (0, 13, 1)),
        ("5:28.0.1-1~debian.12~bookworm", (28, 0, 1)),
        ("20.10.24+dfsg1-1+deb12u1+b6", (20, 10, 24)),
        ("26", (26,)),
        ("none", ()),
        ("", ()),
    ],
)
def test_version_of(text, version):
    assert versions.version_of(text) == version


@pytest.mark.parametrize(
    ("found", "needed", "enough"),
    [
        ("26.1.5+dfsg1", "26.1", True),
        ("26.1", "26.1.0", True),
        ("26.0.9", "26.1", False),
        ("2.9.0", "2.26.1", False),
        ("2.100.0", "2.26.1", True),
        ("3.11.2", "3.11", True),
        ("", "1", False),
    ],
)
def test_at_least(found, needed, enough):
    assert versions.at_least(found, needed) is enough


numbers = st.lists(st.integers(0, 999), min_size=2, max_size=4).map(tuple)


@given(numbers, numbers)
def test_versions_are_ordered_as_numbers(one, other):
    one_text, other_text = (".".join(map(str, version)) for version in (one, other))
    width = max(len(one), len(other))
    padded = [version + (0,) * (width - len(version)) for version in (one, other)]
    assert versions.at_least(one_text, other_text) == (padded[0] >= padded[1])


def test_minimums_are_numbers_that_yaml_reads_as_we_do():
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(versions.MINIMUMS_FILE.read_text())
    assert {name: str(value) for name, value in read.items()} == versions.minimums()


def test_minimums_name_the_line_that_is_wrong():
    with pytest.raises(UserError, match=r"line 2.*compose = 2"):
        versions.parse_minimums("# numbers\ncompose = 2\n")


def test_minimums_quote_versions():
    # 26.10 without quotes is the number 26.1 to YAML.
    for line in versions.MINIMUMS_FILE.read_text().splitlines():
        name = line.partition(":")[0]
        if name in ("docker_engine", "compose", "buildx", "python"):
            assert '"' in line
