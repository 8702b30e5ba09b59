"""Metrics of bulk work: a file for Prometheus' node exporter, or a push to a Pushgateway.

A command that ends is not there to be scraped, so it leaves or sends what there is to know.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge, pushadd_to_gateway, write_to_textfile

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

    When a run last ended well is a file of its own beside the other, or stays at the Pushgateway,
    so that the next run does not take it away.

    project: the title, a label. shard: index from 0, None where there is one; each has its own
    series, and its own file.

    Raises:
        ValueError: ``target`` is neither.
        OSError: the folder of the file cannot be made.
    """

    def __init__(self, target: str, project: str, shard: int | None = None) -> None:
        address = urlsplit(target)
        self._url = target if "://" in target else ""
        if self._url:
            if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
                raise ValueError(f"found {target!r}, expected http://HOST:PORT of a Pushgateway")
        elif not target.endswith(".prom"):
            # The node exporter reads no others.
            raise ValueError(f"found {target!r}, expected FILE.prom, or the URL of a Pushgateway")
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        self._stem = target.removesuffix(".prom") + (f"-{shard}" if shard is not None else "")
        self._labels = {"project": project, "shard": str(shard or 0)}
        names = tuple(self._labels)
        self._registry, self._end = CollectorRegistry(), CollectorRegistry()
        self._gauges = {
            key: Gauge(f"{JOB}_{key}", meaning, names, registry=self._registry)
            for key, meaning in _MEANINGS.items()
        }
        self._success = Gauge(
            f"{JOB}_success_timestamp_seconds",
            "When a run last ended with every task predicted.",
            names,
            registry=self._end,
        )

    def tell(self, state: State, done: bool = False) -> None:
        """Writes or sends ``state``; ``done``: every task is predicted.

        Raises:
            OSError: it cannot be written or sent.
        """
        for key, gauge in self._gauges.items():
            gauge.labels(**self._labels).set(getattr(state, key))
        self._send(self._registry, "")
        if done:
            self._success.labels(**self._labels).set_to_current_time()
            self._send(self._end, "-success")

    def _send(self, registry: CollectorRegistry, name: str) -> None:
        if not self._url:
            write_to_textfile(f"{self._stem}{name}.prom", registry)  # whole or not at all
            return
        try:
            # Of the group only the metrics that are sent are replaced.
            pushadd_to_gateway(self._url, JOB, registry, self._labels, PUSH_SECONDS)
        except (ValueError, HTTPException) as error:  # what answers is no Pushgateway
            raise OSError(f"{type(error).__name__}: {error}") from None
