"""Puts the table of settings into docs/settings.md, from the one list of them.

docs           writes the table
docs --check   changes nothing; exit code 1 if the table is not that of the list
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from lib import ROOT
from lib.cli import UserError, run_main, say

PAGE = ROOT / "docs" / "settings.md"
BEGIN = (
    "<!-- The table is made by scripts/dev/docs.py; change backend/ls_yolo/settings.py instead. -->"
)
END = "<!-- End of the table. -->"
Marks = tuple[str, str]


def table() -> str:
    """The settings as a Markdown table."""
    done = subprocess.run(
        [sys.executable, "-m", "ls_yolo.settings", "--markdown"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "backend"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UserError(f"cannot read the list of settings:\n{done.stderr.strip()}")
    # As HTML, "<port>" would be a tag and not be shown.
    return done.stdout.strip().replace("<", "&lt;")


def refreshed(page: str, rows: str, name: str = PAGE.name, marks: Marks = (BEGIN, END)) -> str:
    """``page`` with ``rows`` between the two ``marks``, lines that each stand in it once.

    Raises:
        UserError: a mark is missing or there twice, or the second stands before the first.
    """
    begin, end = marks
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UserError(
            f"{name}: expected these two lines once each, in this order:\n{begin}\n{end}"
        )
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{rows}\n\n{end}{rest.partition(end)[2]}"


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only look; exit code 1 on drift")
    options = parser.parse_args(arguments)
    name = PAGE.relative_to(ROOT)
    page = PAGE.read_text()
    wanted = refreshed(page, table())
    if page == wanted:
        say(f"{name}: is what the list of settings says")
    elif options.check:
        raise UserError(f"{name}: differs from the list of settings. Run: python3 scripts/dev docs")
    else:
        PAGE.write_text(wanted)
        say(f"{name}: table made anew")
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
