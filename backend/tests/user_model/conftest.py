"""A model.py of the user's own behind the backend's HTTP: its folder, its process."""

from __future__ import annotations

import os
import sys

import pytest

from ls_yolo.images.web import Web
from ls_yolo.labelstudio.connections import ConnectionCache
from ls_yolo.server import user_model
from ls_yolo.server.base import RequestLimiter
from ls_yolo.settings import BY_NAME
from ls_yolo.user_model.runner import ModelRunner
from tests.user_model.classes import (
    numbers,
)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """What a process has once: its folder, its path of modules, its environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    for name in BY_NAME:  # what is taken out or set for a class comes back
        monkeypatch.setenv(name, os.environ.get(name, "0"))
        monkeypatch.delenv(name)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "label_studio_ml"]:
        monkeypatch.delitem(sys.modules, name)  # what @predict_fn has said stays in it
    (tmp_path / "datasets").mkdir()


@pytest.fixture
def own(tmp_path):
    """Makes a `ModelRunner` of the text of a model.py: ``own(text, name="NewModel")``."""

    def make(text, name="NewModel", studio=None, wait=30.0, module=None, web=None, kept=None):
        module = module or f"model_{next(numbers)}"
        folder = tmp_path / "models"
        folder.mkdir(exist_ok=True)
        (folder / f"{module}.py").write_text(text)
        return ModelRunner(
            f"{module}:{name}", folder, tmp_path / "datasets", studio, web or Web(), wait, kept
        )

    return make


@pytest.fixture
def serve(own):
    """A client of the application that serves the text of a model.py, and its `ModelRunner`."""

    def make(text, password="", connections=None, **more):
        mine = own(text, **more)
        said = ConnectionCache(connections, user_model.parameters)
        return user_model.build(
            mine, said, "user", password, RequestLimiter(16)
        ).test_client(), mine

    return make


@pytest.fixture
def tasks(tmp_path):
    """Makes tasks whose file has the task's number in it."""

    def make(*numbers):
        for number in numbers:
            (tmp_path / "datasets" / f"{number}.txt").write_text(str(number))
        return [{"id": n, "data": {"image": f"/data/local-files/?d={n}.txt"}} for n in numbers]

    return make
