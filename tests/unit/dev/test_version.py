"""One version, in VERSION; all else is made from it."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dev import render_chart, version
from lib import versions
from lib.cli import UserError

CHART = "apiVersion: v2\nversion: 0.1.0\nappVersion: 0.1.0\nkubeVersion: '>=1.30'\n"
NUMBERS = st.from_regex(
    r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(-rc\.[1-9])?", fullmatch=True
)


def test_version_chart_and_changelog_agree():
    version.check(versions.project_version())


@given(NUMBERS)
def test_a_version_stands_twice_in_the_chart_and_nothing_else_changes(number):
    version.need_version(number)
    made = yaml.safe_load(version.in_chart(CHART, number))
    assert {str(made.pop("version")), str(made.pop("appVersion"))} == {number}
    assert made == {"apiVersion": "v2", "kubeVersion": ">=1.30"}


@pytest.mark.parametrize(
    "text", ["", "1", "1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+build",
             "1.2.3\n", "1.2.3 "]
)  # fmt: skip
def test_what_is_no_version_is_refused(text):
    with pytest.raises(UserError, match=r"expected one such as 0\.2\.0"):
        version.need_version(text)


@pytest.mark.parametrize(
    ("heading", "when"),
    [("## 1.2.3 (2026-02-03)", "2026-02-03"), ("## 1.2.3 (unreleased)", "unreleased")],
)
def test_the_changelog_says_when(heading, when):
    text = f"# Changelog\n\n{heading}\n\n- a\n\n## 1.2.2 (2026-01-01)\n"
    assert version.dated(text, "1.2.3") == when


@pytest.mark.parametrize(
    "heading",
    ["", "## 1.2.3", "## 1.2.3 (soon)", "## 1.2.30 (unreleased)", "## 1x2.3 (unreleased)",
     "## 1.2.2 (2026-01-01)\n## 1.2.3 (unreleased)"],
)  # fmt: skip
def test_a_changelog_without_this_version_first_is_refused(heading):
    with pytest.raises(UserError, match=re.escape("expected '## 1.2.3 (unreleased)'")):
        version.dated(f"# Changelog\n\n{heading}\n", "1.2.3")


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """Files that hold the version, and how often the chart was rendered."""
    rendered = []
    for name, text in (
        ("VERSION", "0.1.0\n"), ("Chart.yaml", CHART), ("CHANGELOG.md", "## 0.2.0 (unreleased)\n")
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(version, "ROOT", tmp_path)
    monkeypatch.setattr(version, "FILE", tmp_path / "VERSION")
    monkeypatch.setattr(version, "CHART_FILE", tmp_path / "Chart.yaml")
    monkeypatch.setattr(version, "CHANGELOG", tmp_path / "CHANGELOG.md")
    monkeypatch.setattr(
        render_chart, "main", lambda: rendered.append((tmp_path / "Chart.yaml").read_text())
    )
    return tmp_path, rendered


def test_one_command_writes_a_version_everywhere(kit):
    folder, rendered = kit
    assert version.main(["0.2.0"]) == 0
    assert (folder / "VERSION").read_text() == "0.2.0\n"
    assert rendered == [CHART.replace("0.1.0", "0.2.0")]
    version.check("0.2.0")


def test_a_chart_of_another_version_is_told_with_the_command(kit):
    with pytest.raises(UserError, match=r"Chart\.yaml.*Run: python3 scripts/dev version"):
        version.main(["--check", "0.2.0"])
