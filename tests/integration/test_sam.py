"""SAMs in the backend's image, without a network: masks are those of ultralytics, an image is
looked at once, and what is no SAM is refused. The networks are untrained: nothing is fetched. What
happens inside is in sam_inside.py."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import answer_inside

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What sam_inside.py found."""
    return answer_inside(tmp_path_factory.mktemp("sam"), "sam_inside.py", tmp="size=2g")


@pytest.mark.parametrize(
    ("architecture", "count"), [("mobile_sam", 8), ("sam2_t", 4), ("sam2.1_t", 1)]
)
def test_masks_and_scores_are_those_of_ultralytics_itself(
    inside: Any, architecture: str, count: int
) -> None:
    found = inside["compared"][architecture]
    assert len(found) == count
    for said, one in found.items():
        assert 0.02 < one["area"] < 0.98, (said, one)  # it says something
        assert one["iou"] >= 0.99, (said, one)
        assert one["off"] < 0.001, (said, one)
    assert len({one["score"] for one in found.values()}) == count  # prompts make a difference


def test_all_that_ultralytics_can_build_may_be_named(inside: Any) -> None:
    assert inside["architectures"] == inside["built"]


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("other", "mobile_sam.pt: does not fit the architecture 'sam_b': "),
        ("two", "mobile_sam.pt: does not fit the architecture 'sam2_t': "),
        ("later", "sam2_t.pt: does not fit the architecture 'sam2.1_t': 3 of "),
        ("larger", "sam2_t.pt: does not fit the architecture 'sam2_b': "),
        ("yolo", "found a model of ultralytics for 'segment', expected the weights of a SAM"),
        ("as yolo", "found weights of a SAM (Segment Anything), which is no YOLO; say `task: sam`"),
        (
            "evil",
            "evil.pt: found code in it, which is not loaded; expected the state dict of a SAM",
        ),
        ("cut", "cut.pt: cannot be read as weights of PyTorch"),
    ],
)
def test_what_is_no_such_sam_is_refused_with_what_it_is(inside: Any, case: str, said: str) -> None:
    assert said in inside["refused"][case]
    assert not inside["refused"]["ran"]


def test_weights_of_a_sam_are_known_without_running_anything(inside: Any) -> None:
    assert inside["inspected"] == {"mobile_sam": "sam", "sam2.1_t": "sam"}


def test_an_image_is_looked_at_once_in_a_thread_that_gives_way(inside: Any) -> None:
    # What answered, in which control, under which label, and how often the encoder had run by then.
    assert inside["clicks"]["first"] == ["own", "outline", ["person"], 0]
    assert inside["clicks"]["second"] == ["sam", "outline", ["person"], 1]
    assert inside["clicks"]["third"] == ["sam", "outline", ["person"], 1]
    assert inside["clicks"]["unknown to the model"] == ["sam", "outline", ["door"], 2]
    assert inside["clicks"]["nice"] == [5, 5]
    assert inside["clicks"]["bytes"] == [4 << 20] * 2
    assert inside["compared sizes"] == {"mobile_sam": 4 << 20, "sam2_t": 16 << 20}


def test_a_click_is_answered_with_all_cores(inside: Any) -> None:
    assert inside["clicks"]["threads"] == inside["clicks"]["cores"] > 1
