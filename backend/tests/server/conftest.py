"""The application of models.yaml, and what Label Studio asks of it."""

from __future__ import annotations

import pytest

from backend.tests.server.label_studio import CONFIG, LabelStudio
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import base
from ls_yolo.server import models as served_models
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader


@pytest.fixture
def label_studio():
    return LabelStudio()


@pytest.fixture
def models(make_registry, write_weights):
    write_weights("p.pt", {0: "person"}, boxes=[[20, 10, 120, 60, 0.9, 0]], fails=[33])
    write_weights("h.pt", {0: "head"}, boxes=[[0, 0, 50, 50, 0.8, 0]])
    return make_registry("person: {weights: p.pt}\nhead: {weights: h.pt}")


@pytest.fixture
def make(models, datasets, label_studio):
    """A client of a fresh process; every process has the same Label Studio."""

    def make(user="", password="", lifetime=30.0):
        predictor = Predictor(models, ImageReader(datasets, None, "http://label-studio:8080"))
        return served_models.build(
            predictor, ModelChoices(label_studio, lifetime), user, password, base.RequestLimiter(16)
        ).test_client()

    return make


@pytest.fixture
def client(make):
    return make()


@pytest.fixture
def ask(write_image):
    """The body of /predict as Label Studio sends it."""

    def ask(*images, project="3.1700000000", **more):
        tasks = [
            {"id": 100 + i, "data": {"image": url}, "annotations": [], "predictions": []}
            for i, url in enumerate(images or [write_image()])
        ]
        context = {"login": None, "password": None, "context": None}
        return {
            "tasks": tasks,
            "project": project,
            "label_config": CONFIG,
            "params": context,
        } | more

    return ask
