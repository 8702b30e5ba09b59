"""Filters of the role: how ``.env`` spells a value, which the kit's own scripts say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMON = Path(__file__).resolve().parents[4] / "scripts" / "common.py"


def env_text(value: Any) -> str:
    """``value`` as an environment variable: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def env_value(value: Any) -> str:
    """``value`` as a line of ``.env`` must spell it."""
    spec = importlib.util.spec_from_file_location("ls_yolo_common", COMMON)
    assert spec is not None and spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    return str(common.quote_env(env_text(value)))


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"env_text": env_text, "env_value": env_value}
