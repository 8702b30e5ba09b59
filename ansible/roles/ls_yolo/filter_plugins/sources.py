"""A filter of the firewall: which of the networks that may come in are none."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any


def not_ipv4(texts: Iterable[object]) -> list[str]:
    """Those that are neither an IPv4 address nor an IPv4 network."""
    wrong = []
    for text in texts:
        try:
            ipaddress.IPv4Network(str(text))
        except ValueError:
            wrong.append(str(text))
    return wrong


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"not_ipv4": not_ipv4}
