"""Waits until the backend has the models.yaml that the ConfigMap has now.

A change of a ConfigMap reaches running pods after up to a minute and a half; predictions that setup
has stored before that would be of the version before.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import httpx

from ls_yolo import files, settings

SECONDS = 180
"""How long the backend may have another one, from its first answer on."""
LOOKS = 3
"""How often each pod must be seen with it, on the average: which one answers is chance."""
TRY_AGAIN = 2.0
"""Seconds."""


def main() -> int:
    values = {**settings.read("backend"), **settings.read("setup")}
    wanted = files.hash_file(Path(values["MODELS_CONFIG"]))
    auth = (values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    needed = LOOKS * int(os.environ["PODS"])
    good, said = 0, "it does not answer"
    end, answered = time.monotonic() + values["SETUP_TIMEOUT"], False
    while time.monotonic() < end:
        try:
            # A connection of its own for each look, so that another pod may answer.
            answer = httpx.post(
                f"{values['BACKEND_URL']}/reload", json={}, timeout=120,
                auth=auth if auth[1] else None,
            )  # fmt: skip
            answer.raise_for_status()
            found = answer.json()["config"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            good, said = 0, f"{type(error).__name__}: {error}"
            time.sleep(TRY_AGAIN)
            continue
        if not answered:
            answered, end = True, time.monotonic() + SECONDS
        good = good + 1 if found == wanted else 0
        if good >= needed:
            return 0
        if not good:
            said = "it still has another models.yaml"
            print("waiting for the backend to take the new models.yaml", flush=True)
            time.sleep(TRY_AGAIN)
    print(
        f"error: the backend has not taken models.yaml ({said}). Its log says why: "
        "kubectl logs -l app.kubernetes.io/component=backend. Then run helm upgrade again",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
