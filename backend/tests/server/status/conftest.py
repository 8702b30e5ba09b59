"""The application with a board of its own, and the page as a browser asks for it."""

from __future__ import annotations

import pytest

from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import base
from ls_yolo.server import models as served
from ls_yolo.server.status.board import Board
from ls_yolo.server.status.errors import LastErrors
from ls_yolo.server.status.history import History
from ls_yolo.server.status.jobs import Jobs
from ls_yolo.server.status.projects import Projects, of_studio
from ls_yolo.server.status.trying import Trier
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
"""As browsers have it."""


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(make_registry, write_weights):
    write_weights("p.pt", {0: "person"}, boxes=[[20, 10, 120, 60, 0.9, 0]])
    outline = [[10, 10, 60, 60, 0.8, 0]]
    write_weights("s.pt", {0: "cat"}, task="segment", boxes=outline)
    write_weights("c.pt", {0: "day", 1: "night"}, task="classify", scores=[0.3, 0.7])
    text = "person: {weights: p.pt}\noutline: {weights: s.pt}\nwhen: {weights: c.pt}"
    return make_registry(text)


@pytest.fixture
def predictor(registry, datasets):
    return Predictor(registry, ImageReader(datasets, None, "http://label-studio:8080"))


@pytest.fixture
def board(predictor, clock):
    return Board(
        history=History(clock, clock),
        errors=LastErrors(),
        jobs=Jobs(clock),
        projects=Projects(of_studio(None)),
        trier=Trier(predictor),
    )


@pytest.fixture
def make(predictor, board):
    """A client: ``make("user", "password")``."""

    def make(user="", password=""):
        choices, places = ModelChoices(None), base.RequestLimiter(16)
        return served.build(predictor, choices, user, password, places, board).test_client()

    return make


@pytest.fixture
def client(make):
    return make()
