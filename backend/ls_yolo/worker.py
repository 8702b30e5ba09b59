"""gunicorn's threaded worker, of whose threads a slow client takes none for long.

gunicorn itself waits for ever for who sends a byte now and then, keeps a thread for seconds for who
connects and says nothing, and closes connections in the very loop that accepts them.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import deque
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

DRAIN = 0.1
"""Seconds that a thread reads on after an answer to a body that nobody read."""
LINGER = 2.0
"""Seconds that a connection whose answer is sent waits for its client to close it: who is still
sending would else lose the answer."""
_AGAIN = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


class _Reader(SocketUnreader):  # type: ignore[misc,unused-ignore]
    """Reads a request until a deadline."""

    def __init__(self, connection: _Connection) -> None:
        super().__init__(connection.sock)
        self.buf = connection.parser.unreader.buf
        self.timeout = Worker.read_timeout
        self.deadline = 0.0

    def chunk(self, size_hint: int | None = None) -> bytes:
        left = self.deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            data: bytes = super().chunk(size_hint)
            return data
        except TimeoutError:
            raise NoMoreData from None  # as if the client had closed it, which is not logged
        finally:
            self.sock.settimeout(self.timeout)  # for the answer


class _Connection(TConn):  # type: ignore[misc,unused-ignore]
    def __init__(self, worker: Worker, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._worker = worker

    def init(self) -> None:
        """Called as each request begins to arrive."""
        super().init()
        if not isinstance(self.parser.unreader, _Reader):
            self.parser.unreader = _Reader(self)
        self.parser.unreader.deadline = time.monotonic() + Worker.read_timeout

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self._worker.linger(self)
        else:
            super().close()


class Worker(ThreadWorker):  # type: ignore[misc,unused-ignore]
    """See `gunicorn.workers.gthread.ThreadWorker`."""

    read_timeout = 30.0
    """Seconds for a request, head and body, to arrive in, and for its answer to be taken."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._lingering: deque[_Connection] = deque()

    def accept(self, listener: Any) -> None:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno not in _AGAIN:
                raise
            return
        # It waits here, not in a thread, until there is something to read.
        self.nr_conns += 1
        conn = _Connection(self, self.cfg, sock, address, listener.getsockname())
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def linger(self, conn: _Connection) -> None:
        """Closes a connection once its client does, or after `LINGER`; in the main thread."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            self.poller.register(conn.sock, EVENT_READ, partial(self._discard, conn))
        except (OSError, ValueError, KeyError):
            conn.close()
            return
        conn.timeout = time.monotonic() + LINGER
        self._lingering.append(conn)

    def _discard(self, conn: _Connection, sock: Any) -> None:
        try:
            if sock.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lingering.remove(conn)
        self._let_go(conn)

    def _let_go(self, conn: _Connection) -> None:
        with suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)
        conn.close()

    def murder_pending(self) -> None:
        super().murder_pending()
        while self._lingering and self._lingering[0].timeout <= time.monotonic():
            self._let_go(self._lingering.popleft())

    def _keepalive_after(self, conn: _Connection, keepalive: bool) -> bool:
        if not keepalive:
            return False
        conn.parser.unreader.deadline = time.monotonic() + DRAIN
        return bool(conn.parser.finish_body(deadline=time.monotonic() + DRAIN))

    def _cap_keepalive(self, deadline: float) -> None:
        # Else who is connected and says nothing would keep a stopping worker.
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
