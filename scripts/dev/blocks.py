"""Blocks of files that are made from something else, between two lines that mark them."""

from __future__ import annotations

from lib.cli import UserError

Marks = tuple[str, str]


def refreshed(page: str, rows: str, name: str, marks: Marks, gap: str = "\n\n") -> str:
    """``page`` with ``rows`` between the two ``marks``, lines that each stand in it once.

    ``name`` is what an error calls the page; ``gap`` stands between marks and rows.

    Raises:
        UserError: a mark is missing or there twice, or the second stands before the first.
    """
    begin, end = marks
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise UserError(
            f"{name}: expected these two lines once each, in this order:\n{begin}\n{end}"
        )
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{gap}{rows}{gap}{end}{rest.partition(end)[2]}"
