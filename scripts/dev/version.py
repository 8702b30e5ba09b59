"""The kit's version: it stands in VERSION, and all else that names it is made from that.

version [NUMBER]    writes it into VERSION and the chart; without NUMBER, what VERSION says
version --check     changes nothing; exit code 1 where a file says something else
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from dev import render_chart
from lib import ROOT, versions
from lib.cli import UserError, run_main, say

FILE = ROOT / "VERSION"
CHART_FILE = render_chart.CHART / "Chart.yaml"
CHANGELOG = ROOT / "CHANGELOG.md"
UNRELEASED = "unreleased"
# Semantic Versioning without "+build", which no tag of an image may hold.
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PART = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_PART}(?:\.{_PART})*)?")
_CHART = re.compile(r"(?m)^((?:version|appVersion): ).*$")


def need_version(text: str) -> str:
    """Raises: UserError: it is no version that an image, a chart and a tag can have."""
    if not _VERSION.fullmatch(text):
        raise UserError(f"VERSION: found {text!r}, expected one such as 0.2.0 or 0.2.0-rc.1")
    return text


def in_chart(text: str, version: str) -> str:
    """``Chart.yaml`` with the version of chart and application."""
    return _CHART.sub(rf"\g<1>{version}", text)


def dated(changelog: str, version: str) -> str:
    """When the changelog says that a version was released: a date, or ``unreleased``.

    Raises:
        UserError: it has no section of that version, or it does not stand first.
    """
    first = re.search(r"(?m)^## (.*)$", changelog)
    found = first[1] if first else "no section"
    if match := re.fullmatch(rf"{re.escape(version)} \(({UNRELEASED}|\d{{4}}-\d\d-\d\d)\)", found):
        return match[1]
    raise UserError(
        f"CHANGELOG.md: found {found!r} first, expected '## {version} ({UNRELEASED})' or a date "
        "in place of that word"
    )


def check(version: str) -> None:
    """Raises: UserError: VERSION, chart and changelog do not agree."""
    need_version(version)
    text = CHART_FILE.read_text()
    if in_chart(text, version) != text:
        raise UserError(
            f"{CHART_FILE.relative_to(ROOT)}: its versions are not {version}, which VERSION says. "
            "Run: python3 scripts/dev version"
        )
    dated(CHANGELOG.read_text(), version)


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look; exit code 1 on drift")
    parser.add_argument("number", nargs="?", default=versions.project_version())
    options = parser.parse_args(arguments)
    version = need_version(options.number)
    if options.check:
        check(version)
        say(f"{version}: VERSION, chart and changelog agree")
        return 0
    FILE.write_text(f"{version}\n")
    CHART_FILE.write_text(in_chart(CHART_FILE.read_text(), version))
    render_chart.main()
    check(version)  # the changelog is people's
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
