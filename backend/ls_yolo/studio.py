"""Label Studio's API, by its own SDK: tokens, uploads, connections."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from ls_yolo.media import MediaError

ASK_TIMEOUT = 10
"""How long a question that a prediction waits for may take, in seconds."""


class StudioError(RuntimeError):
    """Label Studio cannot be used; the message says what it answered and what to do."""


class Studio:
    """A connection to Label Studio. The SDK exchanges and refreshes a Personal Access Token."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key

    @cached_property
    def client(self) -> LabelStudio:
        """The SDK's client.

        Raises:
            StudioError: the token has expired.
        """
        try:
            return LabelStudio(  # type: ignore[no-untyped-call]
                base_url=self.url, api_key=self._api_key, timeout=130
            )
        except ApiError as error:
            raise StudioError(
                f"LABEL_STUDIO_API_KEY: {_detail(error)}; make a new one in Label Studio"
            ) from None

    def fetch(self, path: str, limit: int) -> bytes:
        """The file under ``path`` of Label Studio, an absolute path without query, not quoted.

        Raises:
            MediaError: the file is not there, or has more than ``limit`` bytes.
            StudioError: Label Studio is not reached or does not take the token.
        """
        try:
            headers = self.client._client_wrapper.get_headers()
            with httpx.stream("GET", self.url + quote(path), headers=headers, timeout=30) as answer:
                if answer.status_code in (404, 410):
                    raise MediaError(f"{path}: Label Studio does not have it")
                if answer.status_code != 200:
                    # A redirect leads to the log-in page: the token did not count.
                    refused = answer.status_code in (301, 302, 401, 403)
                    cure = "; check LABEL_STUDIO_API_KEY" if refused else ""
                    raise StudioError(f"{path}: Label Studio answered {answer.status_code}{cure}")
                data = bytearray()
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) > limit:
                        raise MediaError(f"{path}: larger than {limit >> 20} MiB")
                return bytes(data)
        except MediaError:
            raise
        # ValueError: what should be JSON is not, behind a broken proxy for example.
        except (httpx.HTTPError, httpx.InvalidURL, ApiError, ValueError) as error:
            raise StudioError(f"{path}: not to be had from {self.url}: {reason(error)}") from None

    def connections(self, project: int) -> list[dict[str, Any]]:
        """The ML backend connections of a project: ``id``, ``url``, ``extra_params``, ...

        Raises:
            StudioError: Label Studio is not reached or refuses.
        """
        try:
            rows = self.client.ml.list(
                project=project,
                request_options={"timeout_in_seconds": ASK_TIMEOUT, "max_retries": 0},
            )
        except (httpx.HTTPError, ApiError, ValueError) as error:
            raise StudioError(f"connections of project {project}: {reason(error)}") from None
        return [row.model_dump() for row in rows]


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
