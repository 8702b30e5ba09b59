"""``ls-yolo models``: what the models are."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ls_yolo import settings
from ls_yolo.cli.common import ToolError, table
from ls_yolo.config import ConfigError
from ls_yolo.models import weights
from ls_yolo.models.config import ModelConfig, Source
from ls_yolo.text import some

ASK_TIMEOUT = 5
"""How long the backend may take to say what it has, in seconds."""


# ls-yolo models


def models(options: argparse.Namespace) -> int:
    """Prints the models of the backend that runs, else those of models.yaml; 1 if one is faulty."""
    where, rows = known()
    if options.json:
        print(json.dumps({"source": where, "models": rows}, indent=2, ensure_ascii=False))
    else:
        print(f"from {where}")
        print(
            table(
                ("model", "version", "state", "classes", "engine", "memory"),
                [
                    (
                        row["name"],
                        row.get("version") or "-",
                        row.get("state") or "-",
                        some(row["classes"], 3) if row.get("classes") else "-",
                        row.get("engine") or "-",
                        f"{row['memory_mb']} MB" if row.get("memory_mb") else "-",
                    )
                    for row in rows
                ],
            )
        )
        for row in rows:
            if row.get("error"):
                print(f"{row['name']}: {row['error']}", file=sys.stderr)
    return 1 if any(row.get("error") for row in rows) else 0


def known() -> tuple[str, list[dict[str, Any]]]:
    """Where the models are known from, and a row for each: ``name``, ``version``, ``state``,
    ``error``, and ``classes``, ``engine``, ``memory_mb`` as far as known.

    Raises:
        ToolError: the backend refuses the password.
        ConfigError: no backend answers, and models.yaml cannot be used.
    """
    import httpx

    values = settings.read("setup")
    url = values["BACKEND_URL"].rstrip("/")
    if "BACKEND_URL" not in os.environ and "PORT" in os.environ:
        url = f"http://127.0.0.1:{os.environ['PORT']}"  # inside the backend's own container
    user, password = values["BASIC_AUTH_USER"], values["BASIC_AUTH_PASS"]
    try:
        # Without a proxy: the backend is near.
        with httpx.Client(trust_env=False, timeout=ASK_TIMEOUT) as client:
            answer = client.get(f"{url}/readyz", auth=(user, password) if password else None)
        rows = answer.json().get("models")
        if isinstance(rows, list):
            return url, rows
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError):
        pass
    else:
        raise ToolError(
            f"{url} does not say what its models are; check BASIC_AUTH_USER and BASIC_AUTH_PASS"
        )
    mine = settings.read("backend")
    return mine["MODELS_CONFIG"], [_row(spec) for spec in _source(mine).specs().values()]


def _source(values: Mapping[str, Any]) -> Source:
    return Source(
        Path(values["MODELS_CONFIG"]), Path(values["MODEL_ROOT"]), values["MODEL_SCORE_THRESHOLD"]
    )


def _row(spec: Any) -> dict[str, Any]:
    """A model as its files tell, without loading it."""
    row = {"name": spec.name, "version": "", "state": "", "error": ""}
    try:
        entry: ModelConfig = spec.entry()
        names = weights.inspect(entry.weights).names
    except (ConfigError, weights.WeightsError) as error:
        return {**row, "state": "failed", "error": str(error)}
    classes = list({**names, **entry.names}.values())
    return {**row, "version": entry.version, "state": "not running", "classes": classes}
