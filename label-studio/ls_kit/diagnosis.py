"""What only Label Studio's own process knows of itself: ``GET /api/ls-kit/diagnosis``.

Asked by ``ls-yolo doctor``, which judges. Any member of the organization may ask; nothing is
changed, and nothing is called but the ML backends that ``url`` names, under the same guard against
private addresses as every call of Label Studio.
"""

# Django and Label Studio are there in the image, not where this is checked.
# mypy: disable-error-code="import-not-found,import-untyped,misc,untyped-decorator"

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection, transaction
from django.utils.decorators import method_decorator
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView

from ls_kit import folders

LOCK_SECONDS = 2.0
"""How long a writer's turn in SQLite is waited for."""


def database() -> dict[str, Any]:
    """``kind``, ``version``, ``size`` in bytes, and who holds others up: ``waiting`` statements,
    and ``oldest``, the age in seconds of the oldest transaction; in SQLite, ``locked``."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version'), pg_database_size(current_database()),"
                " (SELECT count(*) FROM pg_locks WHERE NOT granted),"
                " (SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)"
                "  FROM pg_stat_activity WHERE datname = current_database()"
                "  AND pid <> pg_backend_pid())"
            )
            version, size, waiting, oldest = cursor.fetchone()
        return {"kind": "postgresql", "version": version, "size": int(size),
                "waiting": int(waiting), "oldest": float(oldest), "locked": False}  # fmt: skip
    path = Path(connection.settings_dict["NAME"])
    size = sum(
        file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists()
    )
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        journal = cursor.fetchone()[0]
    return {"kind": "sqlite", "version": sqlite3.sqlite_version, "size": size, "waiting": 0,
            "oldest": 0.0, "locked": locked(path), "journal": journal}  # fmt: skip


def locked(path: Path, seconds: float = LOCK_SECONDS) -> bool:
    """Whether a writer's turn in the SQLite file ``path`` did not come within ``seconds``."""
    with contextlib.closing(sqlite3.connect(path, timeout=seconds)) as own:
        try:
            own.execute("BEGIN IMMEDIATE")
            own.rollback()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                return True
            raise
    return False


def migrations() -> list[str]:
    """Those of the code that the database lacks."""
    from django.db.migrations.loader import MigrationLoader

    loader = MigrationLoader(connection)
    return sorted(
        ".".join(key) for key in loader.graph.nodes if key not in loader.applied_migrations
    )


def storages(organization: Any) -> list[dict[str, Any]]:
    """The local storages that tasks come from: ``project``, ``path``, ``error`` and ``file``, one
    that can be read, from the document root."""
    from io_storages.localfiles.models import LocalFilesImportStorage

    root = Path(settings.LOCAL_FILES_DOCUMENT_ROOT)
    rows = LocalFilesImportStorage.objects.filter(project__organization=organization)
    found = []
    for storage in rows.order_by("pk"):
        path = Path(storage.path or "")
        file, error = folders.first_file(path)
        with contextlib.suppress(ValueError):
            file = str(Path(file).relative_to(root)) if file else ""
        found.append({"id": storage.pk, "project": storage.project_id, "path": str(path),
                      "file": file, "error": error})  # fmt: skip
    return found


def reach(url: str) -> dict[str, Any]:
    """Whether Label Studio may call ``url`` and reaches the ML backend there, as it does itself:
    ``url``, ``error`` (empty: it does), ``kind`` of the error (``url``, ``dns``, ``refused`` by the
    guard, ``unreached``, ``status``), and ``seconds``."""
    from core.utils.exceptions import LabelStudioAPIException, SsrfBlockedUrlError
    from core.utils.io import validate_upload_url
    from ml.api_connector import MLApi

    began = time.monotonic()

    def answer(kind: str = "", error: str = "") -> dict[str, Any]:
        return {"url": url, "kind": kind, "error": error, "seconds": time.monotonic() - began}

    try:
        parts = urlsplit(url)
    except ValueError as error:
        return answer("url", str(error))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return answer("url", "no http:// or https:// address")
    try:
        validate_upload_url(url, block_local_urls=settings.ML_BLOCK_LOCAL_IP)
    except SsrfBlockedUrlError as error:
        return answer("refused", str(error.detail if hasattr(error, "detail") else error))
    except LabelStudioAPIException as error:
        return answer("dns", str(error))
    began = time.monotonic()
    result = MLApi(url=url, max_retries=0).health()
    if not result.is_error:
        return answer()
    status = result.status_code
    return answer("status" if status else "unreached", f"{status or result.error_message}")


def account(user: Any) -> dict[str, Any]:
    """Whether tokens of the older kind count in the user's organization."""
    return {"legacy_tokens": bool(user.active_organization.jwt.legacy_api_tokens_enabled)}


def limits() -> dict[str, float]:
    """How long Label Studio waits for an ML backend, in seconds, by what it asks for."""
    from ml import api_connector

    return {
        "connect": api_connector.CONNECTION_TIMEOUT,
        "health": api_connector.TIMEOUT_HEALTH,
        "setup": api_connector.TIMEOUT_SETUP,
        "predict": api_connector.TIMEOUT_PREDICT,
    }


def web() -> dict[str, Any]:
    """Where people are said to come from, and what forms are taken from there."""
    return {
        "address": settings.HOSTNAME or "",
        "csrf_trusted_origins": list(settings.CSRF_TRUSTED_ORIGINS),
        "allowed_hosts": list(settings.ALLOWED_HOSTS),
        "secure_cookies": bool(settings.SESSION_COOKIE_SECURE),
        "guard": bool(settings.SSRF_PROTECTION_ENABLED and settings.ML_BLOCK_LOCAL_IP),
        "spared": list(getattr(settings.USER_ADDITIONAL_BANNED_SUBNETS, "hosts", ())),
    }


def facts(user: Any) -> dict[str, Any]:
    """Everything but backends; what cannot be found out is ``{"error": why}`` in its place."""
    from label_studio import __version__

    organization = user.active_organization
    root = Path(settings.LOCAL_FILES_DOCUMENT_ROOT)
    looks: Mapping[str, Callable[[], Any]] = {
        "version": lambda: str(__version__),
        "time": time.time,
        "account": lambda: account(user),
        "limits": limits,
        "web": web,
        "serving": lambda: bool(settings.LOCAL_FILES_SERVING_ENABLED),
        "document_root": lambda: folders.describe(root),
        "storages": lambda: storages(organization),
        "database": database,
        "migrations": migrations,
        "disks": lambda: folders.disks((Path(settings.BASE_DATA_DIR), Path("/tmp"))),
    }
    found = {}
    for name, look in looks.items():
        try:
            found[name] = look()
        except Exception as error:  # one that fails does not hide the others
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    return found


# Not in a transaction: in SQLite its writer's turn would be taken by this request itself.
@method_decorator(transaction.non_atomic_requests, name="dispatch")
class DiagnosisAPI(APIView):
    """`facts`; with ``?url=``, what `reach` says of that ML backend instead."""

    permission_classes = (IsAuthenticated,)

    def get(self, request: Any) -> Response:
        url = request.query_params.get("url")
        return Response({"backend": reach(url)} if url else facts(request.user))
