"""Files at http(s) addresses, fetched so that nobody is led where they may not go."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote_from_bytes, urljoin

import httpcore
import httpx

from ls_yolo.images.limits import MediaError, read_limited
from ls_yolo.images.source import shown

CONNECT_SECONDS = 5.0
"""How long one address may take to answer at all."""
READ_SECONDS = 10.0
"""How long a server may be silent."""
TOTAL_SECONDS = 30.0
"""How long one file may take, redirects included; Label Studio gives a request 100 s."""
MAX_REDIRECTS = 5
"""How often a server may point elsewhere; each place is looked at like the first."""

Resolve = Callable[[str, int], Iterable[str]]
"""(host name, port) to its IP addresses; raises OSError where it has none."""

_WRITTEN = bytes(range(0x21, 0x7F))
"""The bytes that stand in a URL as they are; a browser quotes the others."""
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Addresses that carry an IPv4 address to go on to: 6to4 and Teredo.
_TUNNELS = (ipaddress.ip_network("2002::/16"), ipaddress.ip_network("2001::/32"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet: not to this machine, a private network,
    a link, a group of receivers, a reserved range or a tunnel."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip not in _GLOBAL_UNICAST or any(ip in tunnel for tunnel in _TUNNELS):
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """What the system's resolver says, numbers in every spelling included."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Web:
    """Fetches files from http(s) addresses.

    ``allowed``: whether it does so at all. ``hosts``: names or addresses that may be private. All
    connections are direct: through a proxy nobody could tell where they end.
    """

    def __init__(
        self,
        allowed: bool = True,
        hosts: Collection[str] = (),
        resolve: Resolve = resolve,
        read_seconds: float = READ_SECONDS,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self.allowed = allowed
        self._hosts = {_plain(host) for host in hosts}
        self._resolve = resolve
        self._read_seconds = read_seconds
        self._total_seconds = total_seconds

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Web:
        """As the settings say."""
        hosts = [host for host in values["HTTP_IMAGE_HOSTS"].split(",") if host.strip()]
        return cls(values["ALLOW_HTTP_IMAGES"], hosts)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # made once: it reads every certificate there is

    def fetch(self, url: str, limit: int) -> bytes:
        """The file at ``url``, redirects followed; user and password in it are not sent.

        Raises:
            MediaError: it is unavailable, is not allowed, is too slow, or has more than
                ``limit`` bytes.
        """
        if not self.allowed:
            raise MediaError(
                f"{shown(url)}: images at http(s) addresses are switched off; "
                "set ALLOW_HTTP_IMAGES=true",
                "forbidden",
            )
        deadline = time.monotonic() + self._total_seconds
        backend = _Checked(self._addresses, deadline)
        with httpcore.ConnectionPool(
            ssl_context=self._tls, network_backend=backend, max_connections=1
        ) as pool:
            at = url
            for _ in range(MAX_REDIRECTS + 1):
                found = self._get(pool, at, limit, deadline)
                if isinstance(found, bytes):
                    return found
                at = found
        raise MediaError(f"{shown(url)}: redirected more than {MAX_REDIRECTS} times", "unreachable")

    def _get(
        self, pool: httpcore.ConnectionPool, url: str, limit: int, deadline: float
    ) -> bytes | str:
        """The file at ``url``, or the URL that it redirects to."""
        try:
            parsed = httpx.URL(url)
            if parsed.scheme not in ("http", "https") or not parsed.raw_host:
                raise MediaError(
                    f"{shown(url)}: not a URL that the backend reads; expected http(s)", "url"
                )
            target = httpcore.URL(
                scheme=parsed.raw_scheme,
                host=parsed.raw_host,
                port=parsed.port,
                target=parsed.raw_path,
            )
            headers = [
                (b"Host", parsed.netloc),
                (b"User-Agent", b"ls-yolo"),
                (b"Accept", b"image/*,*/*;q=0.5"),
                (b"Accept-Encoding", b"identity"),
            ]
            wait = {
                "connect": CONNECT_SECONDS,
                "read": self._read_seconds,
                "write": self._read_seconds,
                "pool": CONNECT_SECONDS,
            }
            with pool.stream(
                "GET", target, headers=headers, extensions={"timeout": wait}
            ) as answer:
                given = {key.lower(): value for key, value in answer.headers}
                if answer.status in (301, 302, 303, 307, 308) and b"location" in given:
                    # Quoted byte by byte, as a browser does it: it may be raw UTF-8.
                    return urljoin(url, quote_from_bytes(given[b"location"], _WRITTEN))
                return _body(answer, given, url, limit, deadline)
        except MediaError:
            raise
        except (httpcore.TimeoutException, TimeoutError):
            raise MediaError(
                f"{shown(url)}: the server was silent for {self._read_seconds:g} s, "
                f"or took more than {self._total_seconds:g} s in all",
                "too_slow",
            ) from None
        # ValueError, UnicodeError: a URL that is none, or a redirect to one.
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            httpx.InvalidURL,
            ValueError,
            OSError,
        ) as error:
            raise MediaError(
                f"{shown(url)}: unavailable: {str(error) or type(error).__name__}", "unreachable"
            ) from None

    def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of ``host``, all looked at.

        Raises:
            MediaError: there is none, or one of them is not public.
        """
        try:
            found = list(self._resolve(host, port))
        except (OSError, UnicodeError) as error:
            found, why = [], f": {error}"
        else:
            why = ""
        if not found:
            raise MediaError(f"{host!r}: no such host{why}", "unreachable")
        if _plain(host) not in self._hosts:
            for address in found:
                if not is_public(address):
                    raise MediaError(
                        f"{host!r}: is at {address}, which is no public address; if images may be "
                        "read from there, add the host to HTTP_IMAGE_HOSTS",
                        "forbidden",
                    )
        return found


def _plain(host: str) -> str:
    return host.strip().strip("[]").rstrip(".").lower()


def _body(
    answer: httpcore.Response, given: dict[bytes, bytes], url: str, limit: int, deadline: float
) -> bytes:
    if answer.status in (404, 410):
        raise MediaError(f"{shown(url)}: the server does not have it", "missing")
    if answer.status != 200:
        raise MediaError(f"{shown(url)}: the server answered {answer.status}", "unreachable")
    if given.get(b"content-encoding", b"identity").lower() not in (b"", b"identity"):
        raise MediaError(f"{shown(url)}: compressed, which was not asked for", "unreachable")
    length = given.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise MediaError(f"{shown(url)}: larger than {limit >> 20} MiB", "too_large")
    return read_limited(answer.iter_stream(), limit, shown(url), deadline)


class _Checked(httpcore.NetworkBackend):
    """Connects to the very addresses that were looked at: a name that is asked for twice may be
    answered differently. All that happens ends at ``deadline`` (`time.monotonic`)."""

    def __init__(self, addresses: Callable[[str, int], list[str]], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._real = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        found = self._addresses(host, port)
        for number, address in enumerate(found, 1):
            with contextlib.suppress(
                *(() if number == len(found) else (httpcore.ConnectError, httpcore.ConnectTimeout))
            ):
                stream = self._real.connect_tcp(
                    address, port, _remaining(self._deadline, timeout), local_address
                )
                return _Limited(stream, self._deadline)
        raise httpcore.ConnectError(host)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _Limited(httpcore.NetworkStream):
    """A stream that ends at a deadline, however often a byte comes before its time-out."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _remaining(self._deadline, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _remaining(self._deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = _remaining(self._deadline, timeout)
        return _Limited(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _remaining(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left if timeout is None else min(left, timeout)
