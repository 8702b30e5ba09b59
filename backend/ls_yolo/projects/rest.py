"""Rows of Label Studio's API as they are: the SDK has a type for each, and leaves fields out."""

from __future__ import annotations

from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import Studio
from ls_yolo.labelstudio.records import TRIES, Requests

SYNC_SECONDS = 3600
"""How long Label Studio's own sync of a storage may take: it is one request, however large."""


class Rows:
    """One collection of the API, for example ``api/webhooks/``; ``project`` is an id.

    Every method raises ApiError where Label Studio refuses, and StudioError where it is silent.
    """

    def __init__(self, studio: Studio, path: str, slash: bool = True) -> None:
        self._studio = studio
        self._path = path.strip("/")
        self._end = "/" if slash else ""

    def all(self, project: int) -> list[dict[str, Any]]:
        """The rows of a project, the oldest first."""
        rows: list[dict[str, Any]] = self._ask("GET", "", project=project)
        return sorted(rows, key=lambda row: int(row["id"]))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Makes a row; returns it."""
        made: dict[str, Any] = self._ask("POST", "", body)
        return made

    def update(self, number: int, body: dict[str, Any]) -> None:
        """Changes a row."""
        self._ask("PATCH", f"/{number}", body)

    def delete(self, number: int) -> None:
        """Deletes a row; one that is gone is no error."""
        try:
            self._ask("DELETE", f"/{number}")
        except ApiError as error:
            if error.status_code != 404:
                raise

    def sync(self, number: int) -> dict[str, Any]:
        """Has a storage read; returns its row, once it is done."""
        client: Any = self._studio.client._client_wrapper.httpx_client
        answer = client.request(
            f"{self._path}/{number}/sync",
            method="POST",
            json={},
            request_options={"timeout_in_seconds": SYNC_SECONDS, "max_retries": 0},
        )
        done: dict[str, Any] = _content(answer)
        return done

    def _ask(self, method: str, more: str, body: Any = None, **params: Any) -> Any:
        # A row that is made twice would be two.
        tries = 1 if method == "POST" else TRIES
        path = self._path + more + self._end
        return _content(Requests(self._studio).ask(method, path, body, params or None, tries))


def _content(answer: httpx.Response) -> Any:
    if answer.is_error:
        try:
            body = answer.json()
        except ValueError:
            body = answer.text[:200]
        raise ApiError(status_code=answer.status_code, headers={}, body=body)
    return answer.json() if answer.content else None
