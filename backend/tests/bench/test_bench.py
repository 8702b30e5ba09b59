"""What `make bench` makes of its figures; that it measures is seen when it runs."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import bars

import bench

URL = "/data/local-files/?d=demo/bus.jpg"
KNOWN = {"a@1": {URL: [0.9, 0.6]}, "b@1": {URL: [0.95, 0.8]}}


@pytest.mark.parametrize(
    ("version", "scores", "right"),
    [
        ("a@1", [0.9, 0.6], True),
        ("a@1", [0.91, 0.59], True),  # torch, before the export is there
        ("b@1", [0.95, 0.8], True),
        ("b@1", [0.9, 0.6], False),
        ("a@1", [0.95, 0.8], False),
        ("a@1", [0.9], False),
        ("c@1", [0.9, 0.6], False),
    ],
)
def test_an_answer_is_held_against_the_weights_whose_version_it_carries(version, scores, right):
    assert bench.of_its_version(URL, version, scores, KNOWN) is right


def test_weights_that_answer_alike_prove_nothing():
    assert not bench.of_its_version(URL, "a@1", [0.9], {v: {URL: [0.9]} for v in ("a@1", "b@1")})


def test_how_fast_one_is_against_another_is_said_within_each_round():
    part = bench.Part("speed")
    for bare in (10.0, 20.0, 40.0):  # the machine was busy, then was not
        part.rounds.append(
            {"bare": {"images_per_second": bare}, "ours": {"images_per_second": bare * 1.2}}
        )
    assert bench.ratio(part, "ours", "bare") == pytest.approx(1.2)


def test_the_table_has_a_line_for_each_way_and_says_which_targets_are_missed():
    part = bench.Part("speed", "openvino", {"bare loop": {"ms": 20.0}, "ours": {"ms": 15.0}})
    part.targets = {"fast": True, "small": False}
    text = bench.table(part)
    assert "bare loop" in text
    assert "reached  fast" in text
    assert "MISSED   small" in text


def test_bars_are_as_long_as_their_values_and_names_are_text():
    root = ET.fromstring(
        bars.svg("a & b", "<images>", [bars.Bar("us", 40, True), bars.Bar("<them>", 10, False)])
    )
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.get("width")) for bar in root.iter(f"{space}rect")][1:]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"a & b", "<images>", "us", "<them>", "40.0", "10.0"} <= set(texts)


def test_without_bars_there_is_no_picture():
    assert bench.picture([bench.Part("requests", figures={"after": {"megabytes": 1.0}})]) is None
