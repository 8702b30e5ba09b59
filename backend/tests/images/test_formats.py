"""Which files are images."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image as PillowImage

from ls_yolo.images import decode, formats


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_every_suffix_is_of_a_format_that_is_decoded(suffix):
    file = io.BytesIO()
    file.name = f"a{suffix}"
    PillowImage.new("RGB", (8, 8), "lime").save(file)
    assert decode.decode(file.getvalue()).shape == (8, 8, 3)


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
def test_the_pattern_takes_every_suffix_in_any_case_and_nothing_more(suffix):
    for name in (f"a{suffix}", f"photos of 2026/a.b{suffix.upper()}"):
        assert re.match(formats.PATTERN, name)
    for name in (f"a{suffix}.txt", f"a{suffix[1:]}", f"a{suffix}~"):
        assert not re.match(formats.PATTERN, name)
