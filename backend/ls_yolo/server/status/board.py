"""What the status page shows, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ls_yolo import logs
from ls_yolo.labelstudio.client import Studio
from ls_yolo.server.status.errors import LastErrors
from ls_yolo.server.status.history import History
from ls_yolo.server.status.jobs import Jobs
from ls_yolo.server.status.projects import Projects, of_studio
from ls_yolo.server.status.trying import Trier


@dataclass(frozen=True)
class Board:
    """The parts of the page; by itself one of a process that nothing is known of yet.

    default: the model of connections that name none; empty: the first that predicts.
    trier: None where images cannot be tried, as with a class of one's own.
    """

    history: History = field(default_factory=History)
    errors: LastErrors = field(default_factory=LastErrors)
    jobs: Jobs = field(default_factory=Jobs)
    projects: Projects = field(default_factory=lambda: Projects(of_studio(None)))
    trier: Trier | None = None
    default: str = ""
    began: float = field(default_factory=time.time)

    @classmethod
    def start(
        cls, values: Mapping[str, Any], studio: Studio | None, trier: Trier | None = None
    ) -> Board:
        """The board of a process that serves as the settings ``values`` say: from now on it follows
        the metrics and the log."""
        board = cls(
            errors=LastErrors(logs.redactor(values)),
            projects=Projects(of_studio(studio)),
            trier=trier,
            default=values["DEFAULT_MODEL"],
        )
        board.history.start()
        logging.getLogger().addHandler(board.errors)
        return board
