"""What asks a backend for predictions, and counts."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="l" toName="image">'
    '<Label value="person"/><Label value="bus"/></RectangleLabels></View>'
)
PASSWORD = "bench"
Figures = dict[str, float]


class BenchError(RuntimeError):
    """Something cannot be measured; the message says why."""


class Backend:
    """A service at ``address`` (host, port); ``cpu_seconds`` says what it has taken of CPUs so far.

    ``urls`` are those of the images that it is asked for, in turn; ``config`` is the labeling
    config, ``params`` those of the request.
    """

    def __init__(
        self,
        address: tuple[str, int],
        urls: Sequence[str],
        cpu_seconds: Callable[[], float],
        config: str = CONFIG,
        params: Any = None,
    ) -> None:
        self._cpu_seconds = cpu_seconds
        self._asked = {"label_config": config, "params": params}
        self._address = address
        self.urls = list(urls)
        self._next = itertools.cycle(urls)
        self._lock = threading.Lock()
        both = base64.b64encode(f"bench:{PASSWORD}".encode()).decode()
        self._headers = {"Authorization": f"Basic {both}", "Content-Type": "application/json"}

    def asking(self, urls: Sequence[str], config: str, params: Any = None) -> Backend:
        """The same service, asked for other images with another labeling config."""
        return Backend(self._address, urls, self._cpu_seconds, config, params)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=100)

    def get(self, path: str) -> Any:
        """The JSON at ``path``; None where the status is not 200."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            return json.loads(answer.read()) if answer.status == 200 else None

    def wait(self, running: Callable[[], bool], seconds: float = 300) -> bool:
        """Whether a model can answer within ``seconds``, as long as it is ``running``."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and running():
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/readyz") is not None:
                    return True
            time.sleep(0.5)
        return False

    @property
    def engine(self) -> str:
        """What runs the models by now; empty where /readyz does not tell."""
        found = self.get("/readyz") or {}
        return ", ".join(str(row.get("engine", "")) for row in found.get("models", []))

    def settle(self, wanted: str, seconds: float) -> None:
        """Waits until ``wanted`` runs every model: torch answers until an export is there. A SAM is
        run by torch always."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.get("/readyz") or {}
            models = [row for row in found.get("models", []) if row.get("task") != "sam"]
            if all(wanted in str(row.get("engine", "")) for row in models):
                return
            time.sleep(0.5)
        raise BenchError(f"after {seconds:g} s it is {self.engine!r} that runs, not {wanted}")

    def ask(
        self, connection: http.client.HTTPConnection, urls: Sequence[str], model: str = ""
    ) -> list[dict[str, Any]]:
        """A prediction for each image.

        Raises:
            BenchError: the request or a task of it failed.
        """
        body = {"tasks": [{"data": {"image": url}} for url in urls], **self._asked}
        path = f"/m/{model}/predict" if model else "/predict"
        connection.request("POST", path, json.dumps(body), self._headers)
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise BenchError(f"the backend answered {answer.status}: {text[:500]!r}")
        results: list[dict[str, Any]] = json.loads(text)["results"]
        if any(result["score"] is None for result in results):
            raise BenchError(f"a task failed: {text[:500]!r}")
        return results

    def urls_of(self, tasks: int) -> list[str]:
        with self._lock:
            return [next(self._next) for _ in range(tasks)]

    def clients(self, number: int, work: Callable[[http.client.HTTPConnection], None]) -> None:
        """Has ``work`` done by so many clients at a time, each on a connection of its own."""

        def one(_: int) -> None:
            with contextlib.closing(self.connect()) as connection:
                work(connection)

        with ThreadPoolExecutor(number) as pool:
            list(pool.map(one, range(number)))

    def run(self, clients: int, tasks: int, seconds: float, model: str = "") -> Figures:
        """Images a second, milliseconds an answer, and what an image takes of CPUs."""
        took: list[float] = []
        used, start = self._cpu_seconds(), time.perf_counter()

        def client(connection: http.client.HTTPConnection) -> None:
            while (began := time.perf_counter()) < start + seconds:
                self.ask(connection, self.urls_of(tasks), model)
                took.append(time.perf_counter() - began)

        self.clients(clients, client)
        passed = time.perf_counter() - start
        images = len(took) * tasks
        return {
            "images_per_second": images / passed,
            "ms": statistics.fmean(took) * 1000,  # a mean, as the loop has
            "cpu_ms_per_image": (self._cpu_seconds() - used) / images * 1000,
        }
