"""Label Studio's API, by its own SDK: tokens, uploads, connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
from label_studio_sdk.base_client import LabelStudioBase
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.errors import RequestError
from ls_yolo.images.limits import MediaError, read_limited
from ls_yolo.images.source import Redirect

ASK_TIMEOUT = 10
"""How long a question that a prediction waits for may take, in seconds."""
SETUP_TIMEOUT = 130
"""How long a question of setup may take, in seconds: Label Studio may ask the backend on its way,
and gives it 100."""
REFUSED_FOR = 1.0
"""How long the failure to exchange a token counts, in seconds, for those who waited meanwhile."""
READ_SECONDS = 30
"""How long Label Studio may be silent while it passes a file on."""
FETCH_SECONDS = 60
"""How long a file from Label Studio may take in all; Label Studio gives a request 100 s."""
BUSY = (429, 500, 502, 503, 504)
"""Answers of a Label Studio, or of a proxy before it, that has no time or is not up. 500 too: it is
what a database that restarts looks like from outside."""


class StudioError(RequestError):
    """Label Studio cannot be used; the message says what it answered and what to do."""

    status = 503


class StudioDown(StudioError):
    """Label Studio does not answer, or has no time: worth another try later."""


class TokenError(StudioError):
    """Label Studio does not take the token."""


class Studio:
    """A connection to Label Studio. The SDK exchanges and refreshes a Personal Access Token.

    ``timeout``: how long an answer may take, in seconds.
    """

    def __init__(self, url: str, api_key: str, timeout: float = SETUP_TIMEOUT) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout = timeout
        self._asking = threading.Lock()
        self._refused: tuple[float, Exception] | None = None

    @cached_property
    def client(self) -> LabelStudioBase:
        """The SDK's client.

        Raises:
            TokenError: it has expired.
        """
        try:
            return LabelStudioBase(base_url=self.url, api_key=self._api_key, timeout=self._timeout)
        except ApiError as error:
            raise TokenError(
                f"LABEL_STUDIO_API_KEY: {_detail(error)}; make a new one in Label Studio"
            ) from None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Studio | None:
        """As the backend's settings say, for predictions; None where they name no token."""
        url, key = values["LABEL_STUDIO_URL"], values["LABEL_STUDIO_API_KEY"]
        return cls(url, key, ASK_TIMEOUT) if url and key else None

    def headers(self) -> dict[str, str]:
        """The headers of a request to Label Studio, with a token that it takes as it is.

        The token is exchanged by one thread, for all that wait.

        Raises:
            StudioError, ApiError, httpx.HTTPError: it cannot be exchanged.
        """
        with self._asking:
            if self._refused and time.monotonic() < self._refused[0]:
                raise self._refused[1]
            try:
                headers: dict[str, str] = self.client._client_wrapper.get_headers()
            except Exception as error:
                self._refused = (time.monotonic() + REFUSED_FOR, error)
                raise
            return headers

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Sends a request for which the SDK has no call; returns the answer's JSON, None if empty.

        Args:
            method: GET, DELETE, ...
            path: below Label Studio's address, without a slash before it.
            body: what is sent as JSON.

        Raises:
            httpx.HTTPError: Label Studio is not reached, or answers with an error.
        """
        client: Any = self.client._client_wrapper.httpx_client
        answer = client.request(path, method=method, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def fetch(self, path: str, limit: int, query: str = "") -> bytes:
        """The file under ``path`` of Label Studio, an absolute path, not quoted; ``query`` is.

        Raises:
            MediaError: the file is not there, has more than ``limit`` bytes, or comes too slowly.
            Redirect: Label Studio sends to another server, the storage's own for example.
            StudioError: Label Studio is not reached or does not take the token.
        """
        url = self.url + quote(path) + (f"?{query}" if query else "")
        deadline = time.monotonic() + FETCH_SECONDS
        try:
            headers = self.headers()
            with httpx.stream("GET", url, headers=headers, timeout=READ_SECONDS) as answer:
                if answer.status_code in (404, 410):
                    more = ", or no storage of the project covers it" if query else ""
                    raise MediaError(f"{path}: Label Studio does not have it{more}", "missing")
                if answer.status_code == 424:
                    raise MediaError(f"{path}: Label Studio cannot read its storage", "unreachable")
                if answer.status_code in (301, 302, 303, 307, 308):
                    self._redirect(url, answer.headers.get("Location", ""))
                if answer.status_code != 200:
                    # A redirect leads to the log-in page: the token did not count.
                    refused = answer.status_code in (301, 302, 303, 401, 403)
                    fix = "; check LABEL_STUDIO_API_KEY" if refused else ""
                    raise StudioError(f"{path}: Label Studio answered {answer.status_code}{fix}")
                return read_limited(answer.iter_bytes(), limit, path, deadline)
        except MediaError:
            raise
        except TimeoutError:
            raise MediaError(
                f"{path}: Label Studio took more than {FETCH_SECONDS:g} s for it", "too_slow"
            ) from None
        # ValueError: what should be JSON is not, behind a broken proxy for example.
        except (httpx.HTTPError, httpx.InvalidURL, ApiError, ValueError) as error:
            raise StudioError(f"{path}: unavailable from {self.url}: {reason(error)}") from None

    def _redirect(self, url: str, location: str) -> None:
        """Raises `Redirect` where ``location`` is of another server: the token stays here."""
        here, there = urlsplit(self.url), urlsplit(urljoin(url, location))
        if location and (there.scheme, there.netloc) != (here.scheme, here.netloc):
            raise Redirect(there.geturl())

    def connections(self, project: int) -> list[dict[str, Any]]:
        """The ML backend connections of a project: ``id``, ``url``, ``extra_params``, ...

        Raises:
            StudioDown: Label Studio is not reached, or has no time.
            StudioError: it refuses.
        """
        try:
            self.headers()
            rows = self.client.ml.list(
                project=project,
                request_options={"timeout_in_seconds": ASK_TIMEOUT, "max_retries": 0},
            )
        except (httpx.HTTPError, ApiError, ValueError) as error:
            kind = StudioDown if away(error) else StudioError
            raise kind(f"connections of project {project}: {reason(error)}") from None
        return [row.model_dump() for row in rows]


def away(error: Exception) -> bool:
    """Whether a request failed as it does while Label Studio is not up or has no time."""
    if isinstance(error, ApiError):
        return error.status_code in BUSY
    return isinstance(error, httpx.TransportError)


def reason(error: Exception) -> str:
    """What went wrong with a request, in one line."""
    if isinstance(error, ApiError):
        return f"{error.status_code}: {_detail(error)}"
    return f"{type(error).__name__}: {error}"


def _detail(error: ApiError) -> str:
    body = error.body
    if isinstance(body, dict):
        body = body.get("validation_errors") or body.get("detail") or body
    return str(body)[:500]
