"""How checks are run: each alone, a line a finding, the worst as the exit code."""

from __future__ import annotations

import json

import pytest

from ls_yolo.cli import main
from ls_yolo.doctor import run
from ls_yolo.doctor.base import (
    Checks,
    Finding,
    Level,
    Line,
    Unavailable,
    exit_code,
    failed,
    ok,
    warning,
)


@pytest.fixture
def checks():
    made: Checks[None] = Checks()

    @made.add("well")
    def well(_):
        yield ok("as it should be")

    @made.add("broken")
    def broken(_):
        yield ok("so far")
        raise ZeroDivisionError("by zero")

    @made.add("lacking")
    def lacking(_):
        raise Unavailable("the backend does not answer")
        yield

    @made.add("mixed")
    def mixed(_):
        yield warning("half full", "fill it", "left")
        yield ok("empty as it should be", "left")
        yield ok("fine", "right")
        yield ok("all is well")

    return made


def test_a_check_that_crashes_is_a_named_fault_and_the_others_go_on(checks):
    lines = [str(line) for line in checks.run(None)]
    assert lines == [
        "ok   well: as it should be",
        "FAIL broken: the check itself failed: ZeroDivisionError: by zero; look at the log of the "
        "service that it asks: make logs",
        "skip lacking: not looked at: the backend does not answer",
        "warn mixed, left: half full; fill it",
        "ok   mixed, right: fine",
    ]


def test_a_check_can_be_asked_for_alone(checks):
    assert [line.name for line in checks.run(None, ["well", "lacking"])] == ["well", "lacking"]


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([ok("")], 0),
        ([Finding(Level.SKIPPED, "")], 0),
        ([ok(""), warning("", "")], 1),
        ([warning("", ""), failed("", ""), ok("")], 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(findings, code):
    assert exit_code([Line("a", finding) for finding in findings]) == code


def test_a_line_stays_one_line_and_is_an_object_in_json():
    line = Line("labels", failed("two\nlines", "do it", "ship"), 0.25)
    assert str(line) == "FAIL labels, ship: two lines; do it"
    assert json.loads(json.dumps(line.as_json())) == {
        "check": "labels", "subject": "ship", "level": "failed", "found": "two\nlines",
        "fix": "do it", "seconds": 0.25,
    }  # fmt: skip


def test_names_of_checks_are_unique():
    assert len(set(run.NAMES)) == len(run.NAMES) > 20


def test_a_check_that_is_not_there_is_named_with_what_is_near(capsys):
    assert main.main(["doctor", "--only", "lables"]) == 2
    assert "no check is called 'lables'" in (said := capsys.readouterr().err)
    assert "labels" in said


def test_where_nothing_answers_each_service_is_red_and_the_rest_is_skipped(monkeypatch, capsys):
    for name, value in {
        "LABEL_STUDIO_URL": "http://127.0.0.1:1", "BACKEND_URL": "http://127.0.0.1:1",
        "LABEL_STUDIO_API_KEY": "k" * 40, "BASIC_AUTH_USER": "u", "BASIC_AUTH_PASS": "secret",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert main.main(["doctor"]) == 2
    lines = capsys.readouterr().out.splitlines()
    red = {line.split(":")[0] for line in lines if line.startswith("FAIL")}
    assert red == {"FAIL label-studio", "FAIL backend", "FAIL token"}
    assert not any("itself failed" in line for line in lines)
    assert "secret" not in "".join(lines) and "k" * 40 not in "".join(lines)
