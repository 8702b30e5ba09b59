"""A run on the status page of the backend: it reports itself, every few seconds and at its end."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

import httpx

from ls_yolo.jobs.predicting import Target
from ls_yolo.jobs.progress import State

SECONDS = 2.0
"""How long a report may take: the progress is not shown meanwhile."""
LONGEST = 200
"""Letters of a text at most, as the page takes it."""


@dataclass
class Board:
    """Reports a run; that it cannot stops none.

    Args:
        url: of the backend, without models; empty: there is none.
        user, password: its basic auth; an empty password: none.
        target, version: what is predicted, and what answers.
        shard: index from 0 and total, if there are several.
        once: whether a backend that is not there is not asked again; else it may be restarting.
    """

    url: str
    user: str
    password: str
    target: Target
    version: str
    shard: tuple[int, int] | None = None
    once: bool = False
    _gone: bool = field(default=False, init=False)

    def tell(self, state: State, how: str = "running") -> None:
        """Reports ``state``; ``how``: running, done or failed."""
        if not self.url or self._gone:
            return
        body = {
            "project": self.target.id,
            "title": self.target.title[:LONGEST],
            "version": self.version[:LONGEST],
            "done": state.done,
            "total": state.total,
            "failed": state.failed,
            "rate": state.rate,
            "host": socket.gethostname()[:LONGEST],
            "state": how,
        }
        if self.shard and self.shard[1] > 1:
            body["shard"] = "{}/{}".format(*self.shard)
        auth = (self.user, self.password) if self.password else None
        try:
            httpx.post(f"{self.url.rstrip('/')}/jobs", json=body, auth=auth, timeout=SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            self._gone = self.once
