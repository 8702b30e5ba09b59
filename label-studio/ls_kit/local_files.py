"""Local storages: files whose names are not UTF-8 are left out, named in the log.

Upstream fails at the first of them, with a traceback, and takes no other file.
"""

# mypy: disable-error-code="import-not-found,import-untyped"

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

log = logging.getLogger(__name__)


def usable(keys: Iterator[str]) -> Iterator[str]:
    """Those of ``keys`` that a database can hold; the others are logged."""
    for key in keys:
        try:
            key.encode()
        except UnicodeEncodeError:
            shown = key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            log.warning("%s: left out, since its name is not UTF-8; rename it", shown)
        else:
            yield key


def patch() -> None:
    """Has every local storage sync what it can."""
    from io_storages.localfiles.models import LocalFilesImportStorageBase

    upstream = LocalFilesImportStorageBase.iter_keys

    def iter_keys(self: Any) -> Iterator[str]:
        yield from usable(upstream(self))

    LocalFilesImportStorageBase.iter_keys = iter_keys
