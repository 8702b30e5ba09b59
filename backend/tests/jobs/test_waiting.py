"""How long services are waited for."""

from __future__ import annotations

import threading
import time

import pytest

from ls_yolo.jobs.waiting import Stopped, patiently
from ls_yolo.labelstudio.bulk import StudioDown


def test_what_the_tries_themselves_take_counts():
    tries = []

    def ask():
        tries.append(time.monotonic())
        time.sleep(0.6)
        raise StudioDown("away")

    with pytest.raises(StudioDown, match="away"):
        patiently(ask, threading.Event(), 0.5)
    assert len(tries) == 2  # pauses alone would allow a third


def test_a_service_that_comes_back_costs_nothing():
    answers = [StudioDown("away"), StudioDown("away"), 7]

    def ask():
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    assert patiently(ask, threading.Event(), 5) == 7


def test_nobody_is_waited_for_once_the_run_ends():
    stop = threading.Event()
    stop.set()

    def ask():
        raise StudioDown("away")

    with pytest.raises(Stopped):
        patiently(ask, stop)
