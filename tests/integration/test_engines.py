"""The engines, in the backend's image, without a network: they agree, and the export's cache holds
what it promises. What happens inside is in engines_inside.py."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import answer_inside

pytestmark = pytest.mark.docker
PAIRS = [
    ("torch", "direct"),
    ("openvino", "torch"),
    ("openvino, f32", "torch"),
    ("openvino, 32 together", "openvino"),
    ("torch, 32 together", "torch"),
    ("torch, full memory", "torch"),
]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What engines_inside.py found."""
    folder = tmp_path_factory.mktemp("engines")
    fixed = {str(folder / "datasets"): "/fixed"}
    return answer_inside(folder, "engines_inside.py", fixed, tmp="size=1g", small="size=3m")


def overlap(a: list[float], b: list[float]) -> float:
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def best(row: Any, others: list[Any]) -> Any:
    same = [other for other in others if other[0] == row[0]]
    return max(same, key=lambda other: overlap(row[2], other[2]), default=None)


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_engines_agree(inside: Any, one: str, other: str) -> None:
    for name in inside["direct"]:
        for first, second in ((one, other), (other, one)):
            for row in inside[first][name]:
                # A box whose score is at the threshold may be on either side of it.
                if row[1] < 0.25 + 0.02:
                    continue
                found = best(row, inside[second][name])
                assert found is not None, (name, first, row)
                assert overlap(row[2], found[2]) >= 0.95, (name, first, row, found)
                assert abs(row[1] - found[1]) <= 0.02, (name, first, row, found)


def test_a_threshold_means_the_same_alone_and_in_a_batch(inside: Any) -> None:
    assert inside["at the threshold"] == {"torch": [], "openvino": [], "torch, half": []}


def test_where_the_memory_is_full_batches_are_halved_and_the_log_says_so_once(inside: Any) -> None:
    (line,) = inside["full memory"]["log"]
    assert "the memory is full; batches of" in line


def test_in_full_precision_scores_are_those_of_torch_to_the_third_digit(inside: Any) -> None:
    assert ", f32, " in inside["in full"]["then"]
    for name, wanted in inside["torch"].items():
        for row in wanted:
            found = best(row, inside["openvino, f32"][name])
            assert found is not None
            assert abs(row[1] - found[1]) <= 0.001, (name, row, found)


def test_an_int8_model_takes_over_and_is_found_at_the_next_start(inside: Any) -> None:
    taken = inside["int8"]["taken"]
    assert ", int8 (mAP " in taken["first"]
    assert taken["log"] == []
    seen = inside["int8"]["boxes"]
    for name, rows in inside["int8"]["float"].items():
        for row in rows:
            if row[1] < 0.5:
                continue
            found = best(row, seen[name])
            assert found is not None, (name, row)
            assert overlap(row[2], found[2]) >= 0.8, (name, row, found)


def test_an_int8_model_that_loses_more_than_a_point_is_refused_once(inside: Any) -> None:
    refused = inside["int8"]["refused"]
    assert refused["first"].startswith("openvino")
    assert "int8 (" not in refused["then"]
    assert "; no int8: the mAP falls by" in refused["then"]
    (line,) = refused["log"]
    assert "PRECISION=auto" in line
    assert refused["boxes"] >= 4


def test_too_few_images_make_no_int8_model(inside: Any) -> None:
    few = inside["int8"]["too few"]
    assert few["first"].startswith("openvino")
    (line,) = few["log"]
    assert "5 images that can be read, and at least 100 are needed" in line
    assert "CALIBRATION_IMAGES" in line


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_each_image_has_what_can_be_seen_on_it(inside: Any, engine: str) -> None:
    seen = {name: [row[0] for row in rows] for name, rows in inside[engine].items()}
    assert seen["bus.jpg"].count("person") >= 3
    assert "bus" in seen["bus.jpg"]
    assert seen["zidane.jpg"].count("person") == 2
    assert "cat" in seen["chelsea.png"]


def test_torch_answers_while_the_export_is_made_and_openvino_from_then_on(inside: Any) -> None:
    start = inside["first start"]
    assert start["first"].startswith("torch")
    assert start["then"].startswith("openvino")
    assert (start["names"], start["log"]) == (80, [])


def test_the_next_start_finds_the_export(inside: Any) -> None:
    start = inside["second start"]
    assert start["first"].startswith("openvino")
    assert start["log"] == []


def test_a_damaged_export_is_made_anew_while_torch_answers(inside: Any) -> None:
    start = inside["damaged cache"]
    assert start["first"].startswith("torch")
    assert start["then"].startswith("openvino")
    assert "damaged" in start["log"][0]
    assert inside["after the repair"]["first"].startswith("openvino")


@pytest.mark.parametrize(
    ("what", "reason"),
    [("full disk", "No space left on device"), ("read-only", "Read-only file system")],
)
def test_where_no_export_can_be_kept_torch_goes_on_and_the_log_says_why_once(
    inside: Any, what: str, reason: str
) -> None:
    start = inside[what]
    assert start["first"].startswith("torch")
    assert start["then"].startswith("torch")
    assert start["boxes"] >= 4
    (line,) = start["log"]
    assert "torch goes on" in line
    assert reason in line


def test_nothing_is_left_on_a_full_disk(inside: Any) -> None:
    assert inside["left on the full disk"] == ["lock"]


def test_inputs_are_made_as_ultralytics_makes_them(inside: Any) -> None:
    assert inside["shapes"] == []


def test_boxes_are_suppressed_as_torchvision_does_it(inside: Any) -> None:
    assert inside["nms"] == 0


def test_the_file_that_was_named_is_loaded_however_ultralytics_reads_its_name(inside: Any) -> None:
    for name, found in inside["renamed"].items():
        assert found["torch"] == {"bus.jpg": inside["torch"]["bus.jpg"]}, name
        assert found["renamed"] == "man", name
    for row in inside["renamed"]["two-yolov5n.pt"]["export"]["bus.jpg"]:
        assert best(row, inside["torch"]["bus.jpg"]) is not None, row


def test_a_model_for_grey_images_gets_what_ultralytics_feeds_it(inside: Any) -> None:
    grey = inside["grey"]
    assert grey["same pixels"]
    assert (grey["start"]["first"].split()[0], grey["start"]["then"].split()[0]) == (
        "torch",
        "openvino",
    )
    assert grey["start"]["log"] == []
    for engine in ("torch", "openvino"):
        assert grey[engine][1] == pytest.approx(grey["ultralytics"][1], abs=0.02)


def test_a_model_for_another_number_of_channels_is_refused_at_load(inside: Any) -> None:
    assert "images of 4 channels, expected 3 (colours) or 1 (grey)" in inside["grey"]["four"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state", "a state dict"),
        ("lfs", "a Git LFS pointer"),
        ("page", "a web page saved as weights"),
        ("v5", "weights of the YOLOv5 repository"),
        ("own", "code of its own in it, mine.Attention"),
    ],
)
def test_what_is_no_model_of_ultralytics_is_told_what_it_is(
    inside: Any, file: str, text: str
) -> None:
    assert inside["strangers"][file].startswith(f"/tmp/{file}.pt: found {text}")
