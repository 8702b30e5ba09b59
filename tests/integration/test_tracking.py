"""Trackers of ultralytics, in the backend's image, without a network: objects keep their ids, and
what is followed is what ultralytics follows alone. What happens inside is in tracking_inside.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conftest import answer_inside

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What tracking_inside.py found."""
    return answer_inside(tmp_path_factory.mktemp("tracking"), "tracking_inside.py", tmp="size=1g")


@pytest.mark.parametrize("kind", ["botsort", "bytetrack", "deepocsort", "fasttrack", "ocsort"])
def test_objects_that_pass_each_other_keep_their_ids(inside: Any, kind: str) -> None:
    frames = inside["crossing"][kind]
    assert [1, 2] in frames[:4]  # a tracker may wait until it is sure
    assert frames[4:] == [[1, 2]] * len(frames[4:])


@pytest.mark.parametrize("kind", ["botsort", "bytetrack"])
def test_what_is_followed_is_what_ultralytics_follows(inside: Any, kind: str) -> None:
    found, expected = (
        {(frame, number): box for frame, number, box in inside[who][kind]}
        for who in ("here", "direct")
    )
    assert len({number for _, number in expected}) >= 4  # the clip has as many persons, and a bus
    assert found.keys() == expected.keys()
    for at, box in expected.items():
        assert np.abs(np.subtract(found[at], box)).max() < 0.1
