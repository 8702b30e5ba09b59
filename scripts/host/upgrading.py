"""Whether an upgrade is under way: what it keeps for the way back counts only for as long as nobody
goes on working in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lib import ROOT
from lib.cli import UserError


def journal(values: Mapping[str, str]) -> Path:
    """The file that is there while an upgrade is under way."""
    return ROOT / ".cache" / f"upgrade-{values['COMPOSE_PROJECT_NAME']}.json"


def need_none(values: Mapping[str, str]) -> None:
    """Raises: UserError: an upgrade was begun and is not finished."""
    if journal(values).exists():
        raise UserError(
            "an upgrade is half done. Run make upgrade, which ends it, forth or back, then this "
            "again"
        )
