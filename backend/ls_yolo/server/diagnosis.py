"""``GET /diagnosis``: what only the backend's own process knows of itself; for ls-yolo doctor."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask, jsonify, request
from werkzeug.exceptions import BadRequest

from ls_yolo.doctor import folders, tokens
from ls_yolo.images import source
from ls_yolo.images.limits import MediaError
from ls_yolo.labelstudio.client import Studio, StudioError, reason
from ls_yolo.server.openapi import TEXT, Operation, json_answer, list_of, object_of

DEVICES = Path("/dev")
FILES = 100
"""The most files that one request may have looked at."""

ANSWER = object_of(
    {
        "time": {"type": "number", "description": "Seconds since 1970"},
        "document_root": object_of({"path": TEXT, "error": TEXT, "digest": TEXT}),
        "files": {"type": "object", "description": "What keeps each from being read, or nothing"},
        "label_studio": object_of({"url": TEXT, "error": TEXT, "user": TEXT}),
        "gpu": object_of({"devices": list_of(TEXT), "torch": TEXT}),
        "disks": list_of({"type": "object"}),
    }
)


def install(app: Flask, values: Mapping[str, Any], studio: Studio | None) -> None:
    """Adds the route. ``values``: the backend's settings; ``studio``: its way to Label Studio."""

    @app.get("/diagnosis")
    @Operation(
        "What the backend's process knows of itself, for ls-yolo doctor",
        {200: json_answer(ANSWER, "Facts; who asks judges.")},
        slow=True,
        of_models=False,
    )
    def diagnosis() -> Any:
        root = Path(values["LOCAL_FILES_DOCUMENT_ROOT"])
        names = request.args.getlist("file")
        if len(names) > FILES:
            raise BadRequest(f"file: found {len(names)} of them, expected at most {FILES}")
        return jsonify(
            time=time.time(),
            document_root=folders.describe(root),
            files={name: readable(name, root) for name in names},
            label_studio=label_studio(values, studio),
            gpu=gpu(),
            disks=folders.disks((Path(values["MODEL_DIR"]).parent, Path("/tmp"))),
        )


def readable(name: str, root: Path) -> str:
    """What keeps the local file ``name`` from being read; empty where nothing does."""
    try:
        url = f"/data/local-files/?d={quote(name)}"
        with source.opened(url, root, None, ()) as path, path.open("rb") as file:
            file.read(1)
    except MediaError as error:
        return str(error)
    except OSError as error:
        return f"{name!r:.200}: {error.strerror}"
    return ""


def label_studio(values: Mapping[str, Any], studio: Studio | None) -> dict[str, Any]:
    """Whether Label Studio is reached and takes the token: ``url``, ``token`` (its kind),
    ``error``, ``user``, ``seconds``."""
    began = time.monotonic()
    user = error = ""
    if studio is not None:
        try:
            user = str(studio.client.users.whoami().email)
        except StudioError as failure:
            error = str(failure)
        except Exception as failure:  # the SDK's errors and httpx's
            error = reason(failure)
    return {
        "url": values["LABEL_STUDIO_URL"],
        "token": tokens.read(values["LABEL_STUDIO_API_KEY"]).kind,
        "user": user,
        "error": error,
        "seconds": time.monotonic() - began,
    }


def gpu(devices: Path = DEVICES) -> dict[str, Any]:
    """The NVIDIA GPUs that this process is given, as ``devices``, and the version of torch."""
    found: Sequence[Path] = sorted(devices.glob("nvidia[0-9]*")) or sorted(devices.glob("dxg"))
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = ""
    return {"devices": [str(path) for path in found], "torch": torch}
