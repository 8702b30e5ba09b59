"""What the docs point at is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lib import ROOT

README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [README, CHINESE, *sorted((ROOT / "docs").glob("*.md"))]


def headings(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of ``page``."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line).lower() for line in lines)
    return {re.sub(r"[^\w\- ]", "", line).strip().replace(" ", "-") for line in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    dead = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in headings(file)):
            dead.append(target)
    assert dead == []


def commands(page: Path) -> list[str]:
    """What is to be typed: blocks of code without their comments, and code in tables. Diagrams are
    for reading, in the language of their page.
    """
    text = page.read_text()
    blocks = re.findall(r"^ *```(?!mermaid)\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\|.*", text, re.MULTILINE)
    return [
        *(re.sub(r"(?m)\s*(?<!\S)#.*$", "", block) for block in blocks),
        *(code for row in rows for code in re.findall(r"`([^`]+)`", row)),
    ]


def links(page: Path) -> list[str]:
    """Where a page leads, but to itself in another language."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [target for target in targets if target not in (README.name, CHINESE.name)]


def test_the_readme_in_chinese_has_the_same_commands_and_leads_to_the_same_pages() -> None:
    assert len(commands(README)) > 20
    assert commands(CHINESE) == commands(README)
    assert links(CHINESE) == links(README)
    assert f"]({CHINESE.name})" in README.read_text()
    assert f"]({README.name})" in CHINESE.read_text()


def test_a_file_that_the_architecture_names_is_there() -> None:
    named = re.findall(
        r"`([\w./-]+\.(?:py|yml|yaml))`", (ROOT / "docs/architecture.md").read_text()
    )
    there = {
        f"/{path.relative_to(ROOT)}"
        for folder in ("backend", "compose", "examples", "label-studio", "scripts")
        for path in (ROOT / folder).rglob("*")
    }
    user = {"model.py"}  # written by whoever has a model class of their own
    assert [
        name
        for name in named
        if name not in user and not any(path.endswith(f"/{name}") for path in there)
    ] == []
