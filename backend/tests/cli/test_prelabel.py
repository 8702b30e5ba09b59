"""`ls-yolo prelabel`: what it makes of services that fail, and where it writes."""

from __future__ import annotations

import pytest

from ls_yolo.cli import prelabel
from ls_yolo.jobs.predicting import Away
from ls_yolo.labelstudio.client import Studio


def test_services_that_do_not_come_back_are_waited_for_so_long(monkeypatch):
    monkeypatch.setattr(prelabel, "READY_SECONDS", 0.1)
    with pytest.raises(Away, match=r"/health: not ready after 0\.1 s"):
        prelabel._ready(Studio("http://127.0.0.1:1", "legacy"), None)()
