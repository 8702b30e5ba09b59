"""A task's URL to bytes, and what may be read on the way."""

from __future__ import annotations

import base64
import binascii
import contextlib
import posixpath
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, unquote_to_bytes, urlencode, urlsplit

from ls_yolo.images.limits import MAX_BYTES, MediaError, holding

STORAGES = frozenset({"s3", "gs", "azure-blob"})
"""Addresses that Label Studio's cloud storages write into tasks; it passes the files on."""

_LOCAL, _WEB = "/data/local-files", frozenset({"http", "https"})
_UPLOADS = "/data/upload/"

Origin = Literal["local", "studio", "web"]
"""Where an image comes from: this machine or the task itself, Label Studio, or the web."""


class Redirect(Exception):
    """Label Studio has the file at another address, which needs no token: ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Fetcher(Protocol):
    """What fetches a path of Label Studio with a token."""

    def fetch(self, path: str, limit: int, query: str = "") -> bytes:
        """The bytes under ``path`` and ``query``; at most ``limit`` of them, else a `MediaError`.

        Raises:
            Redirect: with a ``query`` only, the file of a storage lies at an address of its own.
        """


class WebFetcher(Protocol):
    """What fetches http(s) addresses without a token: `web.Web`."""

    def fetch(self, url: str, limit: int) -> bytes:
        """The bytes at ``url``; at most ``limit`` of them, else a `MediaError`."""


def origin(url: object, own: Sequence[str]) -> Origin:
    """Where `read` has ``url`` from, with the same ``own``; what is no URL counts as local."""
    if not isinstance(url, str) or _is_data(url):
        return "local"
    try:
        _, parts, path = _parse(url, own)
    except MediaError:
        return "local"
    if path.endswith(_LOCAL):
        return "local"
    return "web" if parts.scheme.lower() in _WEB and not _proxied(parts, path) else "studio"


def read(
    url: str,
    root: Path,
    studio: Fetcher | None,
    own: Sequence[str],
    task_id: object = None,
    web: WebFetcher | None = None,
    project_id: object = None,
) -> bytes:
    """The file that a task's ``url`` stands for.

    ``/data/local-files/?d=...`` is read from the folder ``root`` and never from outside it,
    symbolic links followed. ``/data/upload/...``, the addresses under which Label Studio passes on
    the files of storages (``/tasks/1/resolve/?fileuri=...``), and those files' own
    (``s3://bucket/a.jpg``, for the task ``task_id``) are fetched from Label Studio. ``http://...``
    and ``https://...`` are fetched by ``web``. ``data:...`` holds the file itself.

    Label Studio writes the address and path that it is published under before a local file and a
    storage's, the path before an upload. Of such an address only the path counts: the token goes
    where ``studio`` sends it, nowhere else.

    Args:
        url: as it stands in the task.
        root: the folder of local files.
        studio: what fetches from Label Studio; None: there is no token.
        own: the addresses of Label Studio, that of ``studio`` first, then those that people open.
        task_id: the task's id; a storage's file is asked for under no other.
        web: what fetches from the web; None: such addresses are refused.
        project_id: the id of the task's project, in the same way.

    Raises:
        MediaError: the URL is of another kind, or the file is missing, outside, or too large.
        StudioError: Label Studio cannot be asked.
    """
    if _is_data(url):
        return _read_data(url.strip())
    url, parts, path = _parse(url, own)
    if path.endswith(_LOCAL):
        values = parse_qs(parts.query).get("d", [""])
        return _read_local(values[-1], root)
    if proxied := _proxied(parts, path):
        kind, number, path, file = proxied
        if number != str(task_id if kind == "tasks" else project_id):
            raise MediaError(
                f"{shown(url)}: names a file of {kind[:-1]} {number}; expected one of the task's "
                "own: import the task anew, or correct its address",
                "forbidden",
            )
        return _of_studio(url, path, file, studio, web)
    if parts.scheme.lower() in STORAGES:
        if not isinstance(task_id, int) or isinstance(task_id, bool):
            raise MediaError(
                f"{shown(url)}: Label Studio passes a storage's file on for a stored task only, "
                f"and this one has the id {task_id!r:.50}",
                "url",
            )
        try:
            file = base64.urlsafe_b64encode(url.encode()).decode()
        except UnicodeEncodeError:
            raise MediaError(f"{shown(url)}: not a URL", "url") from None
        return _of_studio(url, f"/tasks/{task_id}/resolve/", file, studio, web)
    if not parts.scheme and not parts.netloc:
        _, upload, name = path.partition(_UPLOADS)
        if upload:
            return _of_studio(url, upload + name, "", studio, web)
    if parts.scheme.lower() in _WEB and web is not None:
        return web.fetch(url, MAX_BYTES)
    raise MediaError(
        f"{shown(url)}: not a URL that the backend reads; expected /data/local-files/?d=..., "
        "/data/upload/..., https://..., s3://... or data:...",
        "url",
    )


@contextlib.contextmanager
def opened(
    url: str,
    root: Path,
    studio: Fetcher | None,
    own: Sequence[str],
    task_id: object = None,
    web: WebFetcher | None = None,
    project_id: object = None,
) -> Iterator[Path]:
    """The file that a task's ``url`` stands for, for what opens files by their path; as `read`,
    but a local file is not read and may be of any size. What comes from elsewhere is in a temporary
    file meanwhile.

    Raises:
        MediaError, StudioError: see `read`; or there is no room for a temporary file.
    """
    if not _is_data(url):
        _, parts, path = _parse(url, own)
        if path.endswith(_LOCAL):
            yield _local(parse_qs(parts.query).get("d", [""])[-1], root)
            return
    with tempfile.NamedTemporaryFile(prefix="ls-yolo-") as file:
        with holding():
            data = read(url, root, studio, own, task_id, web, project_id)
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                raise MediaError(
                    f"{shown(url)}: no room for its {len(data) >> 20} MiB in "
                    f"{tempfile.gettempdir()}: {error.strerror}",
                    "too_large",
                ) from None
            del data
        yield Path(file.name)


def _is_data(url: str) -> bool:
    return url.lstrip()[:5].lower() == "data:"


def _parse(url: str, own: Sequence[str]) -> tuple[str, SplitResult, str]:
    """A URL without Label Studio's own address, its parts, and its path, normalised."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        site = _site(parts)
    except ValueError as error:
        raise MediaError(f"{shown(url)}: not a URL: {error}", "url") from None
    for number, address in enumerate(own):
        try:
            at = urlsplit(address)
            same = site == _site(at)
        except ValueError:  # an IPv6 address without brackets
            continue
        prefix = at.path.rstrip("/") + "/"
        if same and parts.netloc and parts.path.startswith(prefix):
            rest = parts._replace(scheme="", netloc="", path=parts.path[len(prefix) - 1 :])
            # Where people open Label Studio, a proxy may have more than Label Studio.
            if number == 0 or _path(rest).startswith(_UPLOADS):
                return rest.geturl(), rest, _path(rest)
    return url, parts, _path(parts)


def _site(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _path(parts: SplitResult) -> str:
    # Before it is compared: /data/upload/../../api/... is not an upload.
    return posixpath.normpath(unquote(parts.path))


def _proxied(parts: SplitResult, path: str) -> tuple[str, str, str, str] | None:
    """Of a file of a storage that Label Studio passes on: tasks or projects, the id there, the path
    to ask, and what Label Studio calls the file."""
    found = re.search(r"/(tasks|projects)/([0-9]+)/(resolve|presign)$", path)
    files = parse_qs(parts.query).get("fileuri")
    return (found[1], found[2], found[0] + "/", files[-1]) if found and files else None


def _of_studio(
    url: str, path: str, file: str, studio: Fetcher | None, web: WebFetcher | None
) -> bytes:
    if studio is None:
        raise MediaError(
            f"{shown(url)}: Label Studio has it, but the backend has no token; "
            "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY",
            "url",
        )
    if not file:
        return studio.fetch(path, MAX_BYTES)
    try:
        return studio.fetch(path, MAX_BYTES, urlencode({"fileuri": file}))
    except Redirect as found:
        if web is None:
            raise MediaError(
                f"{shown(url)}: its storage sends to {shown(found.url)}, and the backend reads no "
                "such addresses; switch pre-signed URLs off in the storage",
                "url",
            ) from None
        return web.fetch(found.url, MAX_BYTES)


def _read_data(url: str) -> bytes:
    """https://www.rfc-editor.org/rfc/rfc2397"""
    head, comma, body = url.partition(",")
    name = f"{head[:60]!r},..."
    if not comma:
        raise MediaError(f"{name}: not a data URL: it has no comma", "url")
    # Three bytes are four digits; looked at before anything is copied.
    if len(body) > MAX_BYTES // 3 * 4 + 4:
        raise MediaError(f"{name}: larger than {MAX_BYTES >> 20} MiB", "too_large")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(re.sub(r"\s", "", unquote(body)) + "==", validate=False)
    except (binascii.Error, ValueError):
        raise MediaError(f"{name}: its base64 is damaged") from None


def _read_local(name: str, root: Path) -> bytes:
    path = _local(name, root)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MediaError(f"{name!r:.200}: larger than {MAX_BYTES >> 20} MiB", "too_large")
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{name!r:.200}: cannot be read: {error.strerror}", "missing") from None


def _local(name: str, root: Path) -> Path:
    """The file ``name`` inside ``root``, links followed."""
    if not name:
        raise MediaError("/data/local-files/?d=: names no file", "url")
    root = root.resolve()
    outside = MediaError(
        f"{name!r:.200}: lies outside {root}; only files inside it are read", "forbidden"
    )
    try:
        # As Label Studio does it: a leading slash means the root.
        path = (root / posixpath.normpath(name).lstrip("/")).resolve()
        if not path.is_relative_to(root):
            raise outside
        if not stat.S_ISREG(path.stat().st_mode):
            raise MediaError(f"{name!r:.200}: not a file", "missing")
        return path
    except MediaError:
        raise
    except FileNotFoundError:
        if name.startswith("/") and not Path(name).is_relative_to(root):
            raise outside from None
        raise MediaError(
            f"{name!r:.200}: not found in {root}; "
            "mount the same folder in Label Studio and in the backend",
            "missing",
        ) from None
    except OSError as error:
        raise MediaError(f"{name!r:.200}: cannot be read: {error.strerror}", "missing") from None
    except (ValueError, RuntimeError):  # a NUL or what is no text; links that lead in a circle
        raise MediaError(f"{name!r:.200}: not the name of a file", "url") from None


def shown(text: str) -> str:
    """A URL for a message: without user, password and query, where tokens are."""
    scheme, separator, rest = text.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        text = scheme + separator + host.rpartition("@")[2] + slash + path
    text = text.partition("?")[0]
    return repr(text if len(text) <= 200 else text[:200] + "...")
