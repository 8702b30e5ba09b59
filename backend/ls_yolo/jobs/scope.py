"""Which tasks a command means: a filter of the Data Manager, a shard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ls_yolo.labelstudio.bulk import Where
from ls_yolo.labelstudio.client import Studio
from ls_yolo.text import nearest, some

_FORM = (
    'expected JSON such as {"conjunction": "and", "items": [{"filter": "filter:tasks:id", '
    '"operator": "greater", "type": "Number", "value": 100}]}, @FILE with such JSON, '
    "or view:TITLE of a view of the Data Manager"
)


class ScopeError(ValueError):
    """Tasks cannot be chosen like this; the message says what was found and expected."""


def shard(text: str) -> tuple[int, int]:
    """Index and total of ``I/N``, I from 0.

    Raises:
        ScopeError: it has another form.
    """
    index, _, total = text.partition("/")
    if (
        (index + total).isascii()
        and index.isdigit()
        and total.isdigit()
        and int(index) < int(total)
    ):
        return int(index), int(total)
    raise ScopeError(f"found {text!r}, expected I/N, such as 0/4, with I from 0 to N - 1")


def text(given: str) -> str:
    """A filter for who does not have our files: its JSON, which is checked, or ``view:TITLE``.

    Raises:
        ScopeError: it has another form, or there is no such file.
    """
    if given.startswith("view:"):
        return given
    text = given
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ScopeError(f"{text[1:]}: {error}") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise ScopeError(f"found {text!r:.100}, {_FORM}") from None
    if (
        not isinstance(found, dict)
        or found.get("conjunction", "and") not in ("and", "or")
        or not isinstance(found.get("items"), list)
        or not all(isinstance(item, dict) and "filter" in item for item in found["items"])
    ):
        raise ScopeError(f"found {text!r:.100}, {_FORM}")
    return text


def where(given: str, studio: Studio, project: int) -> Where:
    """The filter that ``given`` is, or names.

    Raises:
        ScopeError: it has another form, or there is no such view or file.
        ApiError, httpx.HTTPError, StudioError: the views cannot be had.
    """
    if given.startswith("view:"):
        return _of_view(given.removeprefix("view:"), studio, project)
    return {"conjunction": "and", **json.loads(text(given))}


def _of_view(title: str, studio: Studio, project: int) -> Where:
    # The SDK's rows are typed more narrowly than what Label Studio sends.
    api: Any = studio.client
    views = [row.model_dump().get("data") or {} for row in api.views.list(project=project)]
    titles = [str(view.get("title") or "") for view in views]
    if title not in titles:
        raise ScopeError(
            f"found no view {title!r}{nearest(title, titles)}; the project has: {some(titles)}"
        )
    filters = views[titles.index(title)].get("filters") or {}
    if not filters.get("items"):
        return {"conjunction": "and", "items": []}
    return {"conjunction": filters.get("conjunction") or "and", "items": filters["items"]}
