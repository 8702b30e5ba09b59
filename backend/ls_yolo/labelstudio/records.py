"""What bulk calls take and give, and the requests to Label Studio that they share.

A *good* prediction of a version bears exactly that version and is not a failure; a *failed* one has
an empty result and no score, which is how the backend answers a task that it cannot predict.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.labelstudio.client import BUSY, Studio, StudioError, TokenError, reason
from ls_yolo.labelstudio.client import StudioDown as StudioDown

MOST_ROWS = 500
"""Predictions that are stored by one request."""
SECONDS = 30
"""How long a call may take, in seconds."""
LONG_SECONDS = 100
"""How long one may take that goes through all of a project or a storage: a count of a million
tasks, on a busy machine."""
TRIES = 4
"""How often a call that is safe to repeat is made, at most."""
TRY_SECONDS = 10
"""A call is not made again here after this time, in seconds: who waits longer counts the time."""
PAUSE = 0.5
"""How long the second try waits, in seconds; each further one twice as long."""

Where = Mapping[str, Any]
"""A filter of the Data Manager: ``{"conjunction": "and", "items": [{"filter": "filter:tasks:id",
"operator": "greater", "type": "Number", "value": 7}]}``."""
Shard = tuple[int, int]
"""A part of the tasks, as (index, total): those whose id leaves ``index`` when divided by
``total``; the index begins with 0."""


class NoBulkCalls(StudioError):
    """This Label Studio is not of the kit's image: it lacks the calls that are needed."""


@dataclass(frozen=True)
class Task:
    """A task: ``data`` as the backend gets it in ``/predict``, URLs and all."""

    id: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Page:
    """Tasks of one range of ids, in order. The next page begins after ``last``; 0: no more."""

    tasks: list[Task]
    last: int


@dataclass(frozen=True)
class Counts:
    """Tasks: all; those without a good prediction; those of them whose newest one failed."""

    total: int
    missing: int
    failed: int


@dataclass(frozen=True)
class Row:
    """A prediction to store. ``result``: regions as Label Studio stores them; ``score``: 0 to 1."""

    task: int
    result: list[Any]
    score: float | None
    version: str
    cluster: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of rows.

    ``stored`` now; ``present``: stored before, by another run; ``gone``: tasks that were deleted
    meanwhile; ``refused``: tasks whose rows Label Studio's own validation refuses, and why.
    """

    stored: int = 0
    present: int = 0
    gone: tuple[int, ...] = ()
    refused: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Version:
    """A version with predictions: how many, how many failed, ISO times of first and last."""

    name: str
    count: int
    failed: int
    first: str
    last: str


@dataclass(frozen=True)
class Made:
    """Tasks made of a storage's files by one request, and files that are left for the next."""

    made: int
    left: int


def failed(row: Mapping[str, Any]) -> bool:
    """Whether a stored prediction says that its task could not be predicted."""
    return not row.get("result") and row.get("score") is None


class Requests:
    """Requests for which the SDK has no call, by the SDK's own connection and token."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        tries: int = TRIES,
        seconds: float = SECONDS,
    ) -> httpx.Response:
        """The answer to a request, whatever its status, once Label Studio has time for it.

        Args:
            method: GET, POST, ...
            path: below Label Studio's address, without a slash before it.
            body: what is sent as JSON.
            params: the query.
            tries: 1 where a repetition would not be safe.
            seconds: how long one try may take.

        Raises:
            StudioDown: Label Studio is not reached, or has no time.
            TokenError: it does not take the token.
            StudioError: it answers an exchange of the token with something else.
        """
        why, until = "", time.monotonic() + TRY_SECONDS
        for attempt in range(tries):
            if attempt:
                if time.monotonic() > until:
                    break
                # Not all at once, those of many shards for example.
                time.sleep(PAUSE * 2 ** (attempt - 1) * random.uniform(0.8, 1.2))
            try:
                self._studio.headers()  # exchanges a token once, for all threads
                client: Any = self._studio.client._client_wrapper.httpx_client
                answer: httpx.Response = client.request(
                    path,
                    method=method,
                    json=body,
                    params=params,
                    request_options={"timeout_in_seconds": seconds, "max_retries": 0},
                )
            except (httpx.HTTPError, httpx.InvalidURL, ApiError, ValueError) as error:
                if isinstance(error, ApiError) and error.status_code not in BUSY:
                    refused = error.status_code in (401, 403)
                    hint = "; check LABEL_STUDIO_API_KEY" if refused else ""
                    raise (TokenError if refused else StudioError)(
                        f"{self._studio.url}: {reason(error)}{hint}"
                    ) from None
                why = reason(error)
                continue
            if answer.status_code in (401, 403):
                raise TokenError(
                    f"{self._studio.url} answered {answer.status_code}: {detail(answer)}; "
                    "check LABEL_STUDIO_API_KEY"
                )
            if answer.status_code not in BUSY:
                return answer
            why = f"{answer.status_code}: {detail(answer)}"
        raise StudioDown(f"{self._studio.url}/{path}: {why}")

    def get(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """What Label Studio answers with success, as JSON.

        Raises:
            StudioError: as `ask`; or the answer is an error, or no JSON.
        """
        return self.content(self.ask(method, path, body, **more), path)

    def content(self, answer: httpx.Response, path: str) -> Any:
        """The JSON of an answer to ``path``.

        Raises:
            StudioError: it is an error, or no JSON.
        """
        try:
            content = answer.json() if answer.content else None
        except ValueError:
            content = None
        if answer.is_error or (content is None and answer.content):
            raise StudioError(
                f"{self._studio.url}/{path} answered {answer.status_code}: {detail(answer)}"
            )
        return content


def detail(answer: httpx.Response) -> str:
    """What an answer says went wrong, in a line."""
    try:
        content = answer.json()
    except ValueError:
        return answer.text[:200]
    if isinstance(content, dict):
        content = content.get("validation_errors") or content.get("detail") or content
    return str(content)[:500]
