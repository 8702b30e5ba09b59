"""Waits until every pod of the backend has the models.yaml that the ConfigMap has now.

A change of a ConfigMap reaches running pods after up to a minute and a half, each at its own time;
predictions that a pod stores before that are of the version before. Which pods there are is asked
anew at each look, since an autoscaler may change their number meanwhile.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import httpx

from ls_yolo import files, settings

SECONDS = 180
"""How long a pod may have another one, from the first answer on."""
TRY_AGAIN = 2.0
"""Seconds."""
TIMEOUT = httpx.Timeout(120, connect=5)
"""Seconds for a pod to reload in; one that has gone is still named for some seconds."""


def addresses(host: str) -> set[str]:
    """The addresses of a headless Service: those of its ready pods.

    Raises:
        OSError: there is none.
    """
    rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    found = {str(row[4][0]) for row in rows}
    return {f"[{address}]" if ":" in address else address for address in found}


def main() -> int:
    values = {**settings.read("backend"), **settings.read("setup")}
    wanted = files.hash_file(Path(values["MODELS_CONFIG"]))
    login = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    host, port = os.environ["BACKEND_PODS"].rsplit(":", 1)
    end, answered = time.monotonic() + values["SETUP_TIMEOUT"], False
    # Pods are reached by their addresses, which no proxy knows.
    with httpx.Client(auth=login if login[1] else None, timeout=TIMEOUT, trust_env=False) as client:
        while True:
            try:
                there, behind = addresses(host), []
                for address in sorted(there):
                    answer = client.post(f"http://{address}:{port}/reload", json={})
                    if answer.raise_for_status().json()["config"] != wanted:
                        behind.append(address)
                if not answered:
                    answered, end = True, time.monotonic() + SECONDS
                behind += sorted(addresses(host) - there)
                if not behind:
                    return 0
                said = f"another models.yaml in the pods at {', '.join(behind)}"
                print(f"waiting: still {said}", flush=True)
            except socket.gaierror as error:
                said = f"no pod is ready: {host}: {error.strerror}"
            except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
                said = f"{type(error).__name__}: {error}"
            if time.monotonic() > end:
                break
            time.sleep(TRY_AGAIN)
    print(
        f"error: the backend has not taken models.yaml ({said}). Its log says why: "
        "kubectl logs -l app.kubernetes.io/component=backend. Then run helm upgrade again",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
