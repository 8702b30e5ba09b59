"""What kind of token LABEL_STUDIO_API_KEY is. Nothing here ever shows one."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Token:
    """``kind``: ``none``, ``legacy``, ``personal`` (a JWT that is exchanged), or ``access`` (what
    it is exchanged for, which lasts minutes). ``expires``: seconds since 1970, where it says so."""

    kind: str
    expires: float | None = None


def read(key: str) -> Token:
    """What ``key`` says of itself; whether Label Studio takes it is not known by that."""
    key = key.strip()
    if not key:
        return Token("none")
    parts = key.split(".")
    if len(parts) != 3:
        return Token("legacy")
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        content: Any = json.loads(base64.urlsafe_b64decode(padded))
        expires = float(content["exp"]) if "exp" in content else None
        return Token("access" if content.get("token_type") == "access" else "personal", expires)
    except (ValueError, TypeError, AttributeError):
        return Token("personal")
