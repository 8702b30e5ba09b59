"""What the tests of weights files share."""

from __future__ import annotations

import sys
import types

import pytest


@pytest.fixture
def model(monkeypatch):
    """Makes an object of a class that is in a module of ultralytics only while it is pickled."""

    def make(name, **state):
        module = types.ModuleType("ultralytics.nn.tasks")
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
        monkeypatch.setitem(sys.modules, "ultralytics", types.ModuleType("ultralytics"))
        monkeypatch.setitem(sys.modules, "ultralytics.nn", types.ModuleType("ultralytics.nn"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        found = kind()
        found.__dict__.update(state)
        return found

    return make
