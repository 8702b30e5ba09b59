"""The pages: the table of settings is that of the list, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from dev import docs
from lib import ROOT
from lib.cli import UserError

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


def test_the_table_of_settings_is_that_of_the_list():
    page = docs.PAGE.read_text()
    assert docs.refreshed(page, docs.table()) == page, "run: python3 scripts/dev docs"


def test_check_finds_drift_names_the_cure_and_changes_nothing(tmp_path, monkeypatch):
    page = tmp_path / "settings.md"
    page.write_text(docs.PAGE.read_text().replace("`8080`", "`8081`"))
    before = page.read_text()
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "table", lambda: "| setting |\n|---|")
    with pytest.raises(UserError, match="scripts/dev docs"):
        docs.main(["--check"])
    assert page.read_text() == before
    assert docs.main([]) == 0
    assert "| setting |" in page.read_text()
    assert docs.main(["--check"]) == 0


def test_what_stands_around_the_table_is_kept():
    page = f"# Title\n\nabove\n\n{docs.BEGIN}\nold\n{docs.END}\n\nbelow\n"
    new = docs.refreshed(page, "| new |")
    assert new.startswith("# Title\n\nabove\n\n")
    assert new.endswith("\n\nbelow\n")
    assert "| new |" in new
    assert "old" not in new


@pytest.mark.parametrize("page", ["", docs.BEGIN, f"{docs.END}\n{docs.BEGIN}"])
def test_a_page_without_its_markers_is_a_failure(page):
    with pytest.raises(UserError):
        docs.refreshed(page, "")


@pytest.mark.parametrize(("drifted", "code"), [(False, 0), (True, 1)])
def test_drift_is_exit_code_1_on_the_command_line(tmp_path, drifted, code):
    for part in ("scripts", "backend/ls_yolo", "docs"):
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=skip)
    page = tmp_path / "docs" / "settings.md"
    if drifted:
        page.write_text(page.read_text().replace("`8080`", "`8081`"))
    done = subprocess.run(
        [sys.executable, "scripts/dev", "docs", "--check"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("Run: python3 scripts/dev docs" in done.stderr) is drifted


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
