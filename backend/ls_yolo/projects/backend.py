"""The ML backend, as setup asks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ls_yolo.labelstudio import selection

Say = Callable[[str], None]

BUSY_SECONDS = 60.0
"""How long a backend that has no time for a request (429) is asked again."""


class ApplyError(RuntimeError):
    """A project could not be made or has tasks without predictions; the message has the fix."""


class NotReady(ApplyError):
    """A service is not up, which another try later may find otherwise."""


@dataclass(frozen=True)
class Backend:
    """The ML backend: its URL without models, and what it wants for authentication (or empty)."""

    url: str
    user: str
    password: str

    def address(self, models: Sequence[str]) -> str:
        """The URL that Label Studio is given: the models are in its path."""
        return self.url.rstrip("/") + selection.to_path(models)

    def ask(self, models: Sequence[str], path: str, body: dict[str, Any]) -> Any:
        """What the backend answers to a POST.

        Raises:
            ApplyError: it is not reached, refuses, or is busy for too long; its own message is
                passed on.
        """
        return self._post(f"{self.address(models)}/{path}", body, 100)

    def known(self) -> list[dict[str, Any]]:
        """What the backend says of its models: ``name``, ``task``, ``classes``, ``error``, ...

        Raises:
            ApplyError: it is not reached, or does not say it to who asks without its password.
        """
        url = f"{self.url.rstrip('/')}/readyz"
        auth = (self.user, self.password) if self.password else None
        try:
            rows = httpx.get(url, auth=auth, timeout=10).json().get("models")
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            raise ApplyError(f"{url}: {type(error).__name__}: {error}") from None
        if not isinstance(rows, list):
            raise ApplyError(f"{url} does not say what its models are; check BASIC_AUTH_PASS")
        return rows

    def _post(self, url: str, body: dict[str, Any], timeout: float) -> Any:
        auth = (self.user, self.password) if self.password else None
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                answer = httpx.post(url, json=body, auth=auth, timeout=timeout)
            except httpx.HTTPError as error:
                raise ApplyError(
                    f"{url}: {type(error).__name__}: {error}; is the backend running?"
                ) from None
            if answer.status_code != 429 or time.monotonic() > until:
                break
            time.sleep(1)
        try:
            content = answer.json()
        except ValueError:
            content = None
        if answer.status_code != 200 or not isinstance(content, dict):
            said = content.get("error") if isinstance(content, dict) else None
            raise ApplyError(f"{url} answered {answer.status_code}: {said or answer.text[:200]}")
        return content

    def reload(self, timeout: float = 600) -> dict[str, str]:
        """Has the backend take models.yaml and weights as they are now.

        Returns what is wrong with each model that could not be taken, by name.

        Raises:
            ApplyError: the backend is not reached or refuses, models.yaml cannot be used, or a file
                is still being copied.
        """
        content = self._post(f"{self.url.rstrip('/')}/reload", {}, timeout)
        if content.get("error"):
            raise ApplyError(f"{content['error']}; the backend's models are still those before")
        return {row["name"]: row["error"] for row in content["models"] if row["error"]}


def wait(url: str, timeout: float, say: Say) -> None:
    """Returns when ``url`` answers 200.

    Raises:
        NotReady: it has not within ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    last, told = "", False
    while True:
        try:
            answer = httpx.get(url, timeout=5)
            if answer.status_code == 200:
                return
            last = f"status {answer.status_code}"
        except httpx.HTTPError as error:
            last = f"{type(error).__name__}: {error}"
        if time.monotonic() > end:
            raise NotReady(
                f"{url}: not ready after {timeout:g} s ({last}); "
                "see the log of that service: make logs"
            )
        if not told:
            say(f"waiting for {url}")
            told = True
        time.sleep(1)
