"""How gunicorn serves the backend: ``gunicorn --config python:ls_yolo.server.gunicorn_conf``."""

from __future__ import annotations

import os
import sys
from typing import Any

from ls_yolo import logs, settings
from ls_yolo.server.worker import Worker

try:
    _values = settings.read("backend")
except settings.SettingError as error:
    print(error, file=sys.stderr)
    sys.exit(os.EX_CONFIG)  # starting again does not help

bind = f"0.0.0.0:{_values['PORT']}"
worker_class = "ls_yolo.server.worker.Worker"
Worker.read_timeout = _values["READ_TIMEOUT"]
# One process: every further one would hold its own copy of the weights.
workers = 1
threads = _values["THREADS"]
# Never preload: CUDA does not survive the fork that would follow.
preload_app = False
# A large batch takes as long as it takes; Label Studio itself gives up after 100 s.
timeout = 0
# What runs at SIGTERM is finished; compose.yaml waits a little longer before it kills.
graceful_timeout = 30
keepalive = 75
worker_tmp_dir = "/dev/shm"  # memory, so that a slow disk never stalls the heartbeat
loglevel = "warning"
# As the backend itself logs; it takes over in `logs.configure`, once it runs.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"kit": {"()": logs.formatter, "values": _values}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "kit"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "WARNING", "handlers": [], "propagate": True}},
}


def on_starting(server: Any) -> None:
    """Stops at a fault in models.yaml, saying where it is. What is wrong with weights the worker
    says, which reads them anyway."""
    if _values["MODEL_CLASS"]:
        return  # models.yaml is not asked
    from ls_yolo.config import ConfigError
    from ls_yolo.models.config import Source

    try:
        Source.read(_values).specs()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_CONFIG)  # starting again does not help
