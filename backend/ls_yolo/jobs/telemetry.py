"""Metrics of bulk work: a file for Prometheus' node exporter, or a push to a Pushgateway.

A command that ends is not there to be scraped, so it leaves or sends what there is to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from ls_yolo.jobs.progress import State

JOB = "ls_yolo_prelabel"
PUSH_SECONDS = 5.0
_MEANINGS: Mapping[str, str] = {
    "done": "Tasks predicted and stored by this run.",
    "total": "Tasks to do when this run began.",
    "failed": "Tasks that could not be predicted by this run.",
    "rate": "Tasks a second, lately.",
}


class Telemetry:
    """Tells ``target`` each state: the path of a ``.prom`` file, or the URL of a Pushgateway.

    project: the title, a label. shard: index from 0; each has its own series.
    """

    def __init__(self, target: str, project: str, shard: int = 0) -> None:
        self._target = target
        self._labels = {"project": project, "shard": str(shard)}
        self._registry = CollectorRegistry()
        names = tuple(self._labels)
        self._gauges = {
            key: Gauge(f"{JOB}_{key}", meaning, names, registry=self._registry)
            for key, meaning in _MEANINGS.items()
        }
        self._end = Gauge(
            f"{JOB}_success_timestamp_seconds",
            "When a run last ended with every task predicted.",
            names,
            registry=self._registry,
        )

    def tell(self, state: State, done: bool = False) -> None:
        """Writes or sends ``state``; ``done``: every task is predicted.

        Raises:
            OSError: it cannot be written or sent.
        """
        for key, gauge in self._gauges.items():
            gauge.labels(**self._labels).set(getattr(state, key))
        if done:
            self._end.labels(**self._labels).set_to_current_time()
        if urlsplit(self._target).scheme in ("http", "https"):
            push_to_gateway(self._target, JOB, self._registry, self._labels, PUSH_SECONDS)
        else:
            Path(self._target).parent.mkdir(parents=True, exist_ok=True)
            write_to_textfile(self._target, self._registry)  # whole or not at all
