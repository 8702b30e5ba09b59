"""Waits until the backend answers with the models of the ConfigMap as it is now.

A change of a ConfigMap reaches running pods after up to a minute and a half; predictions that setup
has stored before that would be of the version before. A model whose sha256 is given is waited for
exactly. Of others the new version is not known: where the ConfigMap has just been changed
(CHANGED), any new version is taken for it, or the time is waited for.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from ls_yolo import config, entries, settings

SECONDS = 120
LOOKS = 3
"""How often each pod must be seen with the models, on the average: which one answers is chance."""


def wanted(values: Mapping[str, Any]) -> dict[str, str]:
    """The version of each model by name; empty where only the backend can tell it.

    Raises:
        config.ConfigError: models.yaml cannot be used.
    """
    source = entries.Source(
        Path(values["MODELS_CONFIG"]), Path(values["MODEL_ROOT"]), values["MODEL_SCORE_THRESHOLD"]
    )
    found = {}
    for name, spec in source.specs().items():
        item = spec.item
        entry = entries.Entry(
            name=name,
            weights=spec.root,
            sha256=item.get("sha256", "").lower(),
            names={int(index): text for index, text in item.get("names", {}).items()},
            conf=float(item.get("conf", spec.threshold)),
            iou=float(item.get("iou", entries.DEFAULT_IOU)),
            imgsz=item.get("imgsz"),
        )
        found[name] = entry.version if entry.sha256 else ""
    return found


def taken(rows: list[dict[str, Any]], models: Mapping[str, str]) -> bool:
    """Whether the backend's models are these, as far as can be told. A faulty one counts: setup
    says what is wrong with it."""
    found = {row["name"]: row for row in rows}
    return found.keys() == models.keys() and all(
        found[name]["error"] or not version or found[name]["version"] == version
        for name, version in models.items()
    )


def main() -> int:
    values = {**settings.read("backend"), **settings.read("setup")}
    try:
        models = wanted(values)
    except config.ConfigError as error:
        print(f"error: models.config: {error}", file=sys.stderr)
        return 78
    unknown = [name for name, version in models.items() if not version]
    auth = (values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"])
    before: dict[str, str] | None = None
    good = 0
    end = time.monotonic() + values["SETUP_TIMEOUT"]
    while time.monotonic() < end:
        try:
            # A connection of its own for each look, so that another pod may answer.
            answer = httpx.get(
                f"{values['BACKEND_URL']}/readyz", timeout=10, auth=auth if auth[1] else None
            ).json()
        except (httpx.HTTPError, ValueError):
            time.sleep(2)
            continue
        versions = {row["name"]: row["version"] for row in answer.get("models", [])}
        if before is None:
            before, end = versions, time.monotonic() + SECONDS
        moved = not os.environ["CHANGED"] or not unknown or versions != before
        good = good + 1 if moved and taken(answer.get("models", []), models) else 0
        if good >= LOOKS * int(os.environ["PODS"]) or answer.get("error"):
            return 0
        if not good:
            print(f"waiting for the backend to take {', '.join(models)}", flush=True)
            time.sleep(2)
    # Not an error of its own: setup asks again, and says what is wrong.
    what = "does not answer yet" if before is None else "has the models that it had"
    print(f"the backend {what}; going on")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
