"""gunicorn's threaded worker, of whose threads a slow client takes none.

gunicorn itself waits in a thread for the rest of a request, for ever for who sends a byte now and
then, and closes connections in the very loop that accepts them. Here a request gets a thread once
its head and its body, if that is small, have arrived. The application admits no more large bodies
than leave threads free.

No setting of gunicorn does that: its own worker waits for a connection's first byte outside its
threads (from 5 s on), never for the rest of a request, and ``timeout`` is for silent workers. So
this rests on inner parts of gunicorn 27, which `backend/tests/server/test_worker.py` holds: it
fails, and names the part, where an upgrade changes one.
"""

from __future__ import annotations

import errno
import re
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

from ls_yolo import SMALL_BODY

HEAD = 64 * 1024
"""The longest head of a request, in bytes, that is waited for."""
LINGER = 2.0
"""Seconds that a connection whose answer is sent waits for its client to close it: who is still
sending would else lose the answer."""
_AGAIN = (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK)


_CHUNK = 64 * 1024
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_EXPECTS = re.compile(rb"\nexpect:", re.IGNORECASE)


class _Reader(SocketUnreader):  # type: ignore[misc,unused-ignore]
    """A connection's requests: received without waiting by the main thread, then read by another,
    which waits for more of a large body alone."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.timeout = Worker.read_timeout
        self.until = 0.0
        self._deadline = 0.0
        self._end = 0

    def begin(self) -> None:
        """A request begins, perhaps with bytes that came with the last one."""
        self.until = time.monotonic() + self.timeout
        self._deadline = 0.0
        self._end = 0

    def end(self) -> None:
        """What has not arrived is waited for no longer."""
        self._deadline = 0.0

    def receive(self) -> bool:
        """Takes what there is; whether a thread can go on with it."""
        if self._ready():
            return True
        try:
            data = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:  # closed; gunicorn or the application finds out what is missing
            return True
        self.buf.seek(0, 2)
        self.buf.write(data)
        return self._ready()

    def _ready(self) -> bool:
        arrived = self.buf.seek(0, 2)
        if not self._end:
            data = self.buf.getvalue()
            found = data.find(b"\r\n\r\n", 0, HEAD)
            if found < 0:
                return bool(arrived >= HEAD)
            head = data[:found]
            length = max(map(int, _LENGTH.findall(head)), default=0)
            if length > SMALL_BODY or _CHUNKED.search(head):
                self._deadline = self.until
                return True
            self._end = found + 4 + length
            if arrived < self._end and _EXPECTS.search(head):
                with suppress(OSError):
                    self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return bool(arrived >= self._end)

    def chunk(self, size_hint: int | None = None) -> bytes:
        left = self._deadline - time.monotonic()
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
        self.reader = _Reader(self.sock)

    def init(self) -> None:
        """Called in a thread, before a request is read."""
        super().init()
        self.parser.unreader = self.reader
        self.sock.settimeout(self.reader.timeout)  # for the answer

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
        self._arriving: deque[_Connection] = deque()
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

    def enqueue_req(self, conn: _Connection) -> None:
        """Begins a request, of which something is there; in the main thread, as all but `handle`.

        It waits here for the rest, not in a thread.
        """
        conn.sock.setblocking(False)
        conn.reader.begin()
        if conn.reader.receive():
            super().enqueue_req(conn)
            return
        self._arriving.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self._arrive, conn))

    def _arrive(self, conn: _Connection, sock: Any) -> None:
        if conn.reader.receive():
            self._arriving.remove(conn)
            self._hand_over(conn)

    def _hand_over(self, conn: _Connection) -> None:
        self.poller.unregister(conn.sock)
        super().enqueue_req(conn)

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
        # Who asked for something is told that the rest of it did not come in time.
        while self._arriving and self._arriving[0].reader.until <= time.monotonic():
            self._hand_over(self._arriving.popleft())
        while self._lingering and self._lingering[0].timeout <= time.monotonic():
            self._let_go(self._lingering.popleft())

    def _keepalive_after(self, conn: _Connection, keepalive: bool) -> bool:
        if not keepalive:
            return False
        conn.reader.end()
        return bool(conn.parser.finish_body())

    def _cap_keepalive(self, deadline: float) -> None:
        # Else who is connected and says nothing would keep a stopping worker.
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)
        for conn in self._arriving:
            conn.reader.until = min(conn.reader.until, deadline)
