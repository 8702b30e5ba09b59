"""The last errors: each kind once, without secrets, with its fix."""

from __future__ import annotations

import importlib
import logging
import typing

import pytest

from ls_yolo.errors import RequestError
from ls_yolo.images import limits
from ls_yolo.images.limits import MediaError
from ls_yolo.metrics import kind_of
from ls_yolo.redaction import Redactor
from ls_yolo.server.status import errors, fixes
from ls_yolo.server.status.errors import LastErrors
from ls_yolo.serving import video  # noqa: F401  its errors are among those of requests


@pytest.fixture
def seen():
    handler = LastErrors(Redactor(["hunter2"]))
    logger = logging.getLogger("ls_yolo.test_errors")
    logger.addHandler(handler)
    yield handler, logger
    logger.removeHandler(handler)


def test_warnings_and_errors_are_kept_the_last_first_and_nothing_below(seen):
    handler, log = seen
    log.info("all is well")
    log.warning("first")
    log.error("second %d", 2)
    assert [(one.level, one.message) for one in handler.all()] == [
        ("ERROR", "second 2"),
        ("WARNING", "first"),
    ]


def test_a_thousand_tasks_of_one_kind_are_one_entry_with_the_last_of_them(seen):
    handler, log = seen
    log.warning("something else")
    for number in range(1000):
        kind = {"fields": {"kind": "media_missing"}}
        log.warning("task %s: %s", number, f"{number}.jpg: not found", extra=kind)
    first, second = handler.all()
    assert (first.count, first.message) == (1000, "task 999: 999.jpg: not found")
    assert first.first <= first.last
    assert first.fix == fixes.BY_KIND["media_missing"]
    assert second.message == "something else"


def test_unlike_kinds_of_one_statement_are_entries_of_their_own(seen):
    handler, log = seen
    for kind in ("media_missing", "media_damaged"):
        log.warning("task %s: %s", 1, "no", extra={"fields": {"kind": kind}})
    assert {one.fix for one in handler.all()} == {
        fixes.BY_KIND["media_missing"],
        fixes.BY_KIND["media_damaged"],
    }


def test_no_secret_is_kept(seen):
    handler, log = seen
    log.error("the token is %s", "hunter2")
    log.error("https://a.example/?token=abcdefgh")
    assert not any("hunter2" in one.message or "abcdefgh" in one.message for one in handler.all())


def test_no_more_than_twenty_entries_are_kept_and_none_is_long(seen):
    handler, log = seen
    for letter in "abcdefghijklmnopqrstuvwxyz":
        log.error(letter * 5000)
    assert len(handler.all()) == errors.KEPT
    assert handler.all()[0].message[0] == "z"
    assert max(len(one.message) for one in handler.all()) == errors.LONGEST


def test_an_error_that_was_not_expected_is_told_with_its_class(seen):
    handler, log = seen
    try:
        raise KeyError("lost")
    except KeyError:
        log.exception("POST '/predict' failed")
    (one,) = handler.all()
    assert one.message == "POST '/predict' failed: KeyError: 'lost'"


def test_a_record_whose_arguments_do_not_fit_is_kept_as_it_is():
    handler = LastErrors()
    handler.handle(logging.LogRecord("a", logging.WARNING, "a.py", 1, "%d of %d", (1,), None))
    assert handler.all()[0].message == "%d of %d"


def kinds(error):
    return {error}.union(*map(kinds, error.__subclasses__()))


COMMANDS = ("ls_yolo.jobs.", "ls_yolo.labelstudio.records", "ls_yolo.labelstudio.lookup")
"""Modules whose errors commands meet, and no request."""


def test_every_error_that_a_request_or_a_task_can_meet_has_a_fix():
    """Whoever adds one says what to do about it."""
    names = {
        error.__name__ for error in kinds(RequestError)
        if error.__module__.startswith("ls_yolo.") and error.__name__[0] != "_"
        and not error.__module__.startswith(COMMANDS)
    } - {"RequestError"}  # fmt: skip
    names |= {kind_of(MediaError("no", kind)) for kind in typing.get_args(limits.Kind)}
    assert names - set(fixes.BY_KIND) == set()


def test_what_has_no_kind_is_told_by_who_said_it_and_all_else_leads_to_the_log():
    assert fixes.of("", "ls_yolo.serving.registry") == fixes.BY_LOGGER["ls_yolo.serving.registry"]
    assert fixes.of("", "ls_yolo.engines.export") == fixes.BY_LOGGER["ls_yolo.engines"]
    assert fixes.of("", "werkzeug") == fixes.DEFAULT
    assert fixes.of("ZeroDivisionError", "ls_yolo.serving.predictor") == fixes.DEFAULT


def test_loggers_that_have_a_fix_are_there():
    for name in fixes.BY_LOGGER:
        importlib.import_module(name)
