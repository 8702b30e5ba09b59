"""Rows of Label Studio's API as they are: the SDK has a type for each, and leaves fields out."""

from __future__ import annotations

from typing import Any

from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import Studio


class Rows:
    """One collection of the API, for example ``api/webhooks/``; ``project`` is an id.

    Every method raises ApiError or httpx.HTTPError where Label Studio refuses or is not reached.
    """

    def __init__(self, studio: Studio, path: str, slash: bool = True) -> None:
        self._studio = studio
        self._path = path.strip("/")
        self._end = "/" if slash else ""

    def all(self, project: int) -> list[dict[str, Any]]:
        """The rows of a project, the oldest first."""
        rows: list[dict[str, Any]] = self._ask("GET", "", params={"project": project})
        return sorted(rows, key=lambda row: int(row["id"]))

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Makes a row; returns it."""
        made: dict[str, Any] = self._ask("POST", "", json=body)
        return made

    def update(self, number: int, body: dict[str, Any]) -> None:
        """Changes a row."""
        self._ask("PATCH", f"/{number}", json=body)

    def delete(self, number: int) -> None:
        """Deletes a row; one that is gone is no error."""
        try:
            self._ask("DELETE", f"/{number}")
        except ApiError as error:
            if error.status_code != 404:
                raise

    def sync(self, number: int) -> dict[str, Any]:
        """Has a storage read; returns its row, once it is done."""
        done: dict[str, Any] = self._ask("POST", f"/{number}/sync", end="", json={})
        return done

    def _ask(self, method: str, more: str, end: str | None = None, **what: Any) -> Any:
        client: Any = self._studio.client._client_wrapper.httpx_client
        path = self._path + more + (self._end if end is None else end)
        answer = client.request(path, method=method, **what)
        if answer.status_code >= 400:
            try:
                body = answer.json()
            except ValueError:
                body = answer.text[:200]
            raise ApiError(status_code=answer.status_code, headers={}, body=body)
        return answer.json() if answer.content else None
