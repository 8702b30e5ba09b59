"""What ``get_local_path`` of a user's class fetches with."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from ls_yolo.images.limits import MAX_BYTES
from ls_yolo.images.web import Web
from ls_yolo.labelstudio.client import Studio

FETCH_TIMEOUT = 30
"""How long Label Studio may be silent while a file is fetched, in seconds."""
CACHE_BYTES = 256 * 1024 * 1024
"""How much of what ``get_local_path`` has fetched is kept, in bytes."""


class FileSession(requests.Session):
    """What the SDK's ``get_local_path`` fetches with. Label Studio gets a token that is exchanged
    and refreshed, where the SDK would send a Personal Access Token as it is; all other addresses
    are fetched by ``web``, within its limits. Nobody is waited for long."""

    def __init__(self, studio: Studio | None, web: Web) -> None:
        super().__init__()
        self._studio = studio
        for scheme in ("http://", "https://"):
            self.mount(scheme, _ByWeb(web))
        if studio:
            self.mount(studio.url + "/", HTTPAdapter())

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("timeout", FETCH_TIMEOUT)
        if self._studio and str(url).startswith(self._studio.url + "/"):
            token = self._studio.headers()["Authorization"]
            kwargs["headers"] = {**(kwargs.get("headers") or {}), "Authorization": token}
        return super().request(method, url, *args, **kwargs)


class _ByWeb(BaseAdapter):
    """Answers with what ``web`` fetches. Raises `MediaError` where it may not, or cannot."""

    def __init__(self, web: Web) -> None:
        super().__init__()
        self._web = web

    def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code, answer.request, answer.url = 200, request, request.url
        answer.raw = io.BytesIO(self._web.fetch(request.url, MAX_BYTES))
        return answer

    def close(self) -> None:
        """There is nothing to close."""


def prune(folder: Path, limit: int = CACHE_BYTES) -> None:
    """Deletes the oldest files of ``folder`` beyond ``limit`` bytes; the SDK itself deletes none,
    and it is a folder in memory."""
    with contextlib.suppress(OSError):
        found = sorted(
            ((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in
             os.scandir(folder) if entry.is_file(follow_symlinks=False)), reverse=True,
        )  # fmt: skip
        total = 0
        for _, size, path in found:
            total += size
            if total > limit:
                Path(path).unlink(missing_ok=True)
