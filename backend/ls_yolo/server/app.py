"""The application that gunicorn serves."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from flask import Flask
from gunicorn.arbiter import Arbiter

from ls_yolo import logs, settings
from ls_yolo.config import ConfigError
from ls_yolo.engines.base import EngineError
from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.connections import ModelChoices
from ls_yolo.server import diagnosis
from ls_yolo.server.base import RequestLimiter
from ls_yolo.server.models import build
from ls_yolo.server.status.board import Board
from ls_yolo.server.status.trying import Trier
from ls_yolo.serving.debug_plot import Plotter
from ls_yolo.serving.predictor import Predictor
from ls_yolo.serving.reading import ImageReader
from ls_yolo.serving.registry import Registry, UnknownModel

log = logging.getLogger(__name__)


def create_app() -> Flask:
    """The application as the environment asks for it, every model loaded and warmed up.

    Where it cannot serve, it says why in a line and exits.
    """
    values = settings.read("backend")
    logs.configure(values)
    if values["MODEL_CLASS"]:
        from ls_yolo.server import user_model  # here: nobody else needs it

        return user_model.create(values)
    try:
        models = Registry.read(values)
        models.watch()
    except (ConfigError, UnknownModel, EngineError) as error:
        print(error, file=sys.stderr, flush=True)
        # This code alone makes gunicorn stop, instead of starting the worker over and over.
        sys.exit(Arbiter.WORKER_BOOT_ERROR)
    if not values["BASIC_AUTH_PASS"]:
        log.warning("BASIC_AUTH_PASS is empty: whoever reaches the port may use the models")
    studio = Studio.read(values)
    reader = ImageReader.read(values, studio)
    plotter = Plotter(Path(values["DEBUG_PLOT"])) if values["DEBUG_PLOT"] else None
    predictor = Predictor(models, reader, plotter, score=values["PRELABEL_SCORE"])
    app = build(
        predictor,
        ModelChoices(studio),
        values["BASIC_AUTH_USER"],
        values["BASIC_AUTH_PASS"],
        RequestLimiter(values["THREADS"]),
        Board.start(values, studio, Trier(predictor)),
    )
    diagnosis.install(app, values, studio)
    return app
