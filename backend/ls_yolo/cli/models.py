"""``ls-yolo models``: what the models are."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ls_yolo import settings
from ls_yolo.cli.common import ToolError, app, say, table
from ls_yolo.text import some

if TYPE_CHECKING:
    from ls_yolo.models.config import ModelConfig

ASK_TIMEOUT = 5
"""How long the backend may take to say what it has, in seconds."""


@app.command("models", help="the models: versions, classes, what runs them, memory")
def models(
    as_json: Annotated[bool, typer.Option("--json", help="everything, as JSON")] = False,
) -> int:
    """Prints the models of the backend that runs, else those of models.yaml; 1 if one is faulty."""
    where, rows = known()
    if as_json:
        print(json.dumps({"source": where, "models": rows}, indent=2, ensure_ascii=False))
    else:
        say(f"from {where}")
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
        for row in rows:
            if row.get("error"):
                print(f"{row['name']}: {row['error']}", file=sys.stderr)
    return 1 if any(row.get("error") for row in rows) else 0


def known() -> tuple[str, list[dict[str, Any]]]:
    """Where the models are known from, and a row for each: ``name``, ``version``, ``state``,
    ``error``, and ``task``, ``classes``, ``engine``, ``memory_mb`` as far as known.

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
    from ls_yolo.models.config import Source

    return mine["MODELS_CONFIG"], [_row(spec) for spec in Source.read(mine).specs().values()]


def _row(spec: Any) -> dict[str, Any]:
    """A model as its files tell, without loading it."""
    from ls_yolo.config import ConfigError
    from ls_yolo.models import weights

    row = {"name": spec.name, "version": "", "state": "", "error": ""}
    try:
        entry: ModelConfig = spec.entry()
        found = weights.inspect_for(entry.weights, spec.sam, entry.sha256)
    except (ConfigError, weights.WeightsError) as error:
        return {**row, "state": "failed", "error": str(error)}
    row |= {"version": entry.version, "state": "not running", "task": found.task}
    return {**row, "classes": list({**found.names, **entry.names}.values())}
