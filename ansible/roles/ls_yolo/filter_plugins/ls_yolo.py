"""Filters of the role: how ``.env`` spells a value, which the kit's own scripts say."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COMMON = Path(__file__).resolve().parents[4] / "scripts" / "common.py"


def env_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings as environment variables: true and false in small letters."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }


def env_lines(settings: Mapping[str, Any]) -> list[str]:
    """The settings as lines of ``.env``."""
    spec = importlib.util.spec_from_file_location("ls_yolo_common", COMMON)
    assert spec is not None and spec.loader is not None
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    return [f"{name}={common.quote_env(text)}" for name, text in env_texts(settings).items()]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"env_lines": env_lines, "env_texts": env_texts}
