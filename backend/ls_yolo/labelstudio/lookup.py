"""Finds what people name in a command."""

from __future__ import annotations

from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import (
    Studio,
    StudioDown,
    StudioError,
    TokenError,
    away,
    reason,
)
from ls_yolo.text import nearest, some

PAGE = 1000
"""Projects of one request."""


class NoProject(StudioError):
    """No project is of such a title or id; setup may be about to make it."""


def find_project(studio: Studio, text: str) -> Any:
    """The project that ``text`` names, by title or by id, as the SDK gives it in full.

    A title comes before an id, for projects whose title is a number.

    Raises:
        TokenError: Label Studio does not take the token.
        NoProject: no project is of that title or id.
        StudioDown: Label Studio is not reached, or has no time.
        StudioError: several projects are of that title; Label Studio refuses.
    """
    api: Any = studio.client
    try:
        rows = [row for row in _projects(api, title=text) if row.title == text]
        if len(rows) > 1:
            ids = ", ".join(str(row.id) for row in rows)
            raise StudioError(
                f"found {len(rows)} projects with the title {text!r}, expected one; "
                f"name it by its id: {ids}"
            )
        number = rows[0].id if rows else int(text) if text.isascii() and text.isdigit() else None
        if number is not None:
            try:
                return api.projects.get(int(number))
            except ApiError as error:
                if error.status_code != 404:
                    raise
        titles = [row.title for row in _projects(api)]
    except (httpx.HTTPError, httpx.InvalidURL, ApiError, ValueError) as error:
        if isinstance(error, ApiError) and error.status_code in (401, 403):
            raise TokenError(
                f"Label Studio does not take LABEL_STUDIO_API_KEY ({reason(error)})"
            ) from None
        kind = StudioDown if away(error) else StudioError
        raise kind(f"project {text!r}: {reason(error)}") from None
    raise NoProject(
        f"found no project with the title or id {text!r}{nearest(text, titles)}; "
        f"there are: {some(titles)}"
    )


def _projects(api: Any, **only: str) -> list[Any]:
    """All projects, page by page."""
    found: list[Any] = []
    while True:
        try:
            page = api.projects.list(page=len(found) // PAGE + 1, page_size=PAGE, **only)
        except ApiError as error:
            if found and error.status_code == 404:  # the page before was the last, and full
                return found
            raise
        found += page.items or []
        if len(page.items or []) < PAGE:
            return found
