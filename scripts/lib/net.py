"""Fetching, with proxies, logins and certificate authorities as the settings say."""

from __future__ import annotations

import base64
import functools
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lib import settings
from lib.cli import UserError, say

HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
DEBIAN_MIRROR = "http://deb.debian.org/debian"
TRIES, PAUSE = 3, 2.0
"""How often something is fetched that fails on its way, and the seconds in between."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def tls_context(ca_bundle: str = "") -> ssl.SSLContext:
    """Certificates to trust: CA_BUNDLE, else SSL_CERT_FILE, else the host's own."""
    if ca_bundle:
        path = settings.host_path(ca_bundle)
        if not path.is_file():
            raise UserError(f"CA_BUNDLE: found no file {path}. Correct it in .env")
        return ssl.create_default_context(cafile=str(path))
    return ssl.create_default_context()


def split_login(url: str) -> tuple[str, str, str]:
    """``url`` without its login, which must not be shown; and user and password, decoded."""
    parts = urllib.parse.urlsplit(url)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, "", ""
    user, _, password = map(urllib.parse.unquote, login.partition(":"))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), user, password


def without_password(url: str) -> str:
    return split_login(url)[0]


def with_login_of(known: str, url: str) -> str:
    """``url`` with the login of ``known`` if it leads to the same host, and to no other."""
    one, other = urllib.parse.urlsplit(known), urllib.parse.urlsplit(url)
    login, at, host = one.netloc.rpartition("@")
    if not at or (one.scheme, host) != (other.scheme, other.netloc):
        return url
    return urllib.parse.urlunsplit(other._replace(netloc=f"{login}@{host}"))


def fetch(url: str, timeout: float = 30, ca_bundle: str = "", accept: str = "*/*") -> Any:
    """An open response to ``url``; proxies of the environment are used."""
    url, user, password = split_login(url)
    request = urllib.request.Request(url, headers={"Accept": accept, "User-Agent": "ls-yolo"})
    if user:
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        # Not sent on to where a redirection leads.
        request.add_unredirected_header("Authorization", f"Basic {login}")
    context = tls_context(ca_bundle) if url.startswith("https:") else None
    return urllib.request.urlopen(request, timeout=timeout, context=context)


def passes(error: OSError) -> bool:
    """Whether ``error`` is one of the way or of a busy server, and may be gone at the next try."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return reason.errno == socket.EAI_AGAIN
    return isinstance(reason, ConnectionResetError | ConnectionAbortedError | BrokenPipeError
                      | TimeoutError | ssl.SSLEOFError)  # fmt: skip


def retried(fetching: Callable[_P, _T]) -> Callable[_P, _T]:
    """``fetching``, called again where it fails by what `passes`, `TRIES` times in all."""

    @functools.wraps(fetching)
    def call(*arguments: _P.args, **named: _P.kwargs) -> _T:
        for left in reversed(range(TRIES)):
            try:
                return fetching(*arguments, **named)
            except OSError as error:
                if not left or not passes(error):
                    raise
                say(f"{error}; trying again")
                time.sleep(PAUSE)
        raise AssertionError

    return call


def answers(url: str, timeout: float = 5, ca_bundle: str = "") -> bool:
    """Whether ``url`` can be fetched within ``timeout`` seconds."""
    try:
        with fetch(url, timeout, ca_bundle) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):
        return False


def certificates(values: Mapping[str, str]) -> Path | None:
    """The secret ``ca``: CA_BUNDLE, else the host's own certificates."""
    if not values["CA_BUNDLE"]:
        return HOST_CA if HOST_CA.is_file() else None
    path = settings.host_path(values["CA_BUNDLE"])
    if not path.is_file():
        raise UserError(f"CA_BUNDLE: found no file {path}. Correct it in .env, or leave it empty")
    return path
