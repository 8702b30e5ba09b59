"""The pages: every link leads somewhere."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import pytest

from lib import ROOT

SKIPPED = {".venv", ".tools", ".cache", ".git", "artifacts", "datasets", "node_modules"}
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not SKIPPED & set(path.relative_to(ROOT).parts)
    and not any(part.endswith("_cache") for part in path.parts)
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def prose(text: str) -> str:
    """``text`` without code, in which nothing is a link or a heading."""
    text = re.sub(r"(?ms)^([ \t]*)(```|~~~).*?^[ \t]*\2[ \t]*$", "", text)
    return re.sub(r"`[^`\n]*`", "code", text)


def links(text: str) -> list[str]:
    """The targets of a page's links and images."""
    found = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", prose(text))
    found += re.findall(r"(?m)^\[[^\]]+\]:\s*(\S+)", prose(text))
    return [*found, *re.findall(r"(?:href|src)=\"([^\"]+)\"", prose(text))]


def anchors(text: str) -> set[str]:
    """What a link's fragment can name: the headings, as GitHub spells them."""
    # A heading's own text counts, code in it too; only blocks of code have no headings.
    text = re.sub(r"(?ms)^([ \t]*)(```|~~~).*?^[ \t]*\2[ \t]*$", "", text)
    titles = re.findall(r"(?m)^#{1,6}\s+(.+?)\s*$", text)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)
    found: dict[str, int] = {}
    for name in plain:
        found[name] = found.get(name, -1) + 1
    return {
        f"{name}-{number}" if number else name
        for name, count in found.items()
        for number in range(count + 1)
    }


def test_links_are_found_where_they_are():
    text = '[a](b.md) ![c](d.png) `[e](f.md)` <img src="g.png">\n```\n[h](i.md)\n```\n[j]: k.md\n'
    assert links(text) == ["b.md", "d.png", "k.md", "g.png"]


def test_there_are_pages():
    assert "docs/settings.md" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name):
    path = ROOT / name
    text = path.read_text()
    missing = []
    for link in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", link) or link.startswith("//"):
            continue
        file, _, fragment = urllib.parse.unquote(link).partition("#")
        target = path.parent / file if file else path
        if (
            not target.exists()
            or not target.resolve().is_relative_to(ROOT)
            or (fragment and target.suffix == ".md" and fragment not in anchors(target.read_text()))
        ):
            missing.append(link)
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_one_title_and_no_trailing_blanks(name):
    text = (ROOT / name).read_text()
    blocks_out = re.sub(r"(?ms)^([ \t]*)(```|~~~).*?^[ \t]*\2[ \t]*$", "", text)
    assert len(re.findall(r"(?m)^# ", blocks_out)) == 1
    assert not re.findall(r"(?m)[ \t]+$", text)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


def test_every_page_of_the_docs_is_named_by_another():
    named = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in PAGES
        for link in links(path.read_text())
        if not re.match(r"[a-z][a-z0-9+.-]*:", link)
    }
    alone = [path.name for path in Path(ROOT / "docs").glob("*.md") if path.resolve() not in named]
    assert alone == []
