"""What `make bench` makes of its figures; that it measures is seen when it runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import bars
import bulk
import containers
import here

import bench
from ls_yolo.results import Boxes

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


def found(*rows):
    rows = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def test_agreement_says_the_least_overlap_the_scores_and_what_stands_alone():
    wanted = [found([0, 0, 10, 10, 0.9, 0], [50, 50, 60, 60, 0.8, 1])]
    assert here.agreement(wanted, wanted) == {
        "least IoU": 1.0, "largest difference of scores": 0.0, "boxes alone": 0
    }  # fmt: skip
    moved = [found([0, 0, 10, 9, 0.85, 0], [50, 50, 60, 60, 0.8, 1], [0, 0, 5, 5, 0.3, 2])]
    answer = here.agreement(wanted, moved)
    assert answer["least IoU"] == pytest.approx(0.9)
    assert answer["largest difference of scores"] == pytest.approx(0.05)
    assert answer["boxes alone"] == 1
    assert here.agreement(wanted, [found()])["boxes alone"] == 4  # counted from both sides


def test_a_part_that_fails_leaves_the_others_and_their_figures(tmp_path, monkeypatch):
    def fails(bench):
        raise RuntimeError("no luck")

    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((4, 4, 3), np.uint8))[1])
    options = argparse.Namespace(images=tmp_path, json=tmp_path / "out.json")
    parts = {"one": fails, "two": lambda bench: {"ms": 1.0}}
    monkeypatch.setattr(here, "PARTS", parts)
    here.Bench(options, "cpu", time.monotonic() + 60).run(list(parts))
    written = json.loads(options.json.read_text())["parts"]
    assert written == {"one": {"failed": "RuntimeError: no luck"}, "two": {"ms": 1.0}}
    late = here.Bench(options, "cpu", time.monotonic() - 1)
    late.run(["two"])
    assert "skipped" in late.report["parts"]["two"]


def test_no_secret_is_on_dockers_command_line(tmp_path, monkeypatch):
    """Anybody on the machine can read that."""
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/words\n'
        f'echo "$BASIC_AUTH_PASS $LABEL_STUDIO_API_KEY $PASSWORD" >> {tmp_path}/environ\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    stage = argparse.Namespace(options=argparse.Namespace(cpus="0", image="backend"))
    there = bulk.Deployment(stage, tmp_path, "network")
    there.tool("apply", "/projects")
    there.forget("a@1")
    there.start("postgres", "postgres", {"PASSWORD": "hunter2"})
    place = containers.Place("backend", [])
    with (
        pytest.raises(containers.BenchError),  # there is no container
        containers.backend(place, [f"LABEL_STUDIO_API_KEY={bulk.TOKEN}"], []),
    ):
        pass
    words, environ = (tmp_path / "words").read_text(), (tmp_path / "environ").read_text()
    for secret in (bulk.TOKEN, containers.PASSWORD, "hunter2"):
        assert secret in environ
        assert secret not in words
