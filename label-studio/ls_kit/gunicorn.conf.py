"""How gunicorn runs Label Studio."""

import os
from pathlib import Path

import label_studio  # type: ignore[import-not-found,import-untyped,unused-ignore]

# The package's own folder is where upstream's modules (core, users, ...) are imported from.
chdir = str(Path(label_studio.__file__).parent)
wsgi_app = "core.wsgi:application"
bind = "0.0.0.0:8080"

# One process: SQLite has one writer, and what Label Studio keeps in memory is not shared. Threads,
# because a request for predictions waits for the backend for up to 100 s.
workers = 1
worker_class = "gthread"
threads = int(os.environ.get("LABEL_STUDIO_THREADS") or 8)
# The worker reports from its main thread while requests run in others, so this bounds no request;
# it restarts a worker that hangs as a whole.
timeout = 180
# Less than the 10 s after which Docker kills.
graceful_timeout = 8
keepalive = 5
# On a disk, the worker's sign of life could wait for the disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"

# The Data Manager puts filters into its addresses, and on 127.0.0.1 a browser sends along the
# cookies of every other port.
limit_request_line = 8190
limit_request_field_size = 32768

# No access log: addresses can carry tokens. Errors go to stderr.
accesslog = None
errorlog = "-"
loglevel = "info"
control_socket_disable = True
