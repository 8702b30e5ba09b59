"""What `ls_yolo.server.worker` rests on in gunicorn, which is no interface of gunicorn's.

Whoever upgrades gunicorn and fails here compares the named parts with those that the worker
overrides, then writes down what they are now.
"""

from __future__ import annotations

import hashlib
import inspect

import pytest
from gunicorn.http.unreader import SocketUnreader, Unreader
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from ls_yolo.server import worker

SIGNATURES = {
    TConn.__init__: "(self, cfg, sock, client, server)",
    TConn.init: "(self)",
    TConn.close: "(self, graceful=False)",
    SocketUnreader.__init__: "(self, sock, max_chunk=8192)",
    SocketUnreader.chunk: "(self, size_hint=None)",
    Unreader.read: "(self, size=None, read_ahead=None)",
    ThreadWorker.accept: "(self, listener)",
    ThreadWorker.enqueue_req: "(self, conn)",
    ThreadWorker.on_pending_socket_readable: "(self, conn, client)",
    ThreadWorker.murder_pending: "(self)",
    ThreadWorker._keepalive_after: "(self, conn, keepalive)",
    ThreadWorker._cap_keepalive: "(self, deadline)",
}
"""What the worker overrides or calls."""
BODIES = {
    TConn.init: "5ff3d4ba451c",
    TConn.close: "6d1c334ed197",
    SocketUnreader.chunk: "9f62532259f8",
    ThreadWorker.accept: "f8dcead3dce5",
    ThreadWorker.enqueue_req: "c9f428953d24",
    ThreadWorker.on_pending_socket_readable: "2475f7087832",
    ThreadWorker.murder_pending: "7bf11f464542",
    ThreadWorker.handle: "ca85c9be3df7",
    ThreadWorker.finish_request: "616e7bb15a00",
    ThreadWorker.run: "f92c7394d857",
    ThreadWorker._keepalive_after: "4ebdbbc8bf5a",
    ThreadWorker._cap_keepalive: "745c8ac37108",
}
"""SHA-256, first 12, of the source of what the worker replaces, or counts on the order of."""


def name(part):
    return part.__qualname__


@pytest.mark.parametrize("part", SIGNATURES, ids=name)
def test_what_the_worker_overrides_is_called_as_before(part):
    assert str(inspect.signature(part)) == SIGNATURES[part]


@pytest.mark.parametrize("part", BODIES, ids=name)
def test_what_the_worker_replaces_does_what_it_did(part):
    found = hashlib.sha256(inspect.getsource(part).encode()).hexdigest()[:12]
    assert found == BODIES[part], f"gunicorn's {name(part)} has changed: look at server/worker.py"


def test_whatever_the_worker_overrides_is_looked_at_here():
    held = {part.__qualname__ for part in (*SIGNATURES, *BODIES)}
    for own in (worker.Worker, worker._Connection, worker._Reader):
        for attribute, value in vars(own).items():
            for base in own.__mro__[1:]:
                if inspect.isfunction(value) and attribute in vars(base) and base is not object:
                    part = vars(base)[attribute].__qualname__
                    assert part in held or part.endswith(".__init__"), part
                    break


def test_the_attributes_that_the_worker_uses_are_there():
    made = inspect.getsource(ThreadWorker.__init__)
    for attribute in ("nr_conns", "pending_conns", "poller", "keepalived_conns", "method_queue"):
        assert f"self.{attribute} = " in made, attribute
    for attribute in ("sock", "timeout", "parser"):
        assert f"self.{attribute} = " in inspect.getsource(TConn.__init__), attribute
    assert "self.buf = io.BytesIO()" in inspect.getsource(Unreader.__init__)
    assert hasattr(PollableMethodQueue, "defer")
