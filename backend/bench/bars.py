"""Figures as a picture: bars in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, ROW, LEFT, RIGHT, TOP = 820, 34, 270, 90, 56
OURS, OTHERS = "#2563eb", "#9ca3af"


@dataclass(frozen=True)
class Bar:
    """``ours``: in the project's own colour; else grey, as what it is compared with."""

    name: str
    value: float
    ours: bool


def svg(title: str, unit: str, bars: Sequence[Bar]) -> str:
    """A picture of ``bars``, longest value across its width."""
    height = TOP + ROW * len(bars) + 16
    most = max((bar.value for bar in bars), default=0) or 1
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="14" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<text x="16" y="44" fill="#4b5563">{escape(unit)}</text>',
    ]
    for number, bar in enumerate(bars):
        y = TOP + ROW * number
        width = (WIDTH - LEFT - RIGHT) * max(bar.value, 0) / most
        lines += [
            f'<text x="{LEFT - 10}" y="{y + 20}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="{LEFT}" y="{y + 4}" width="{width:.1f}" height="{ROW - 10}" rx="2" '
            f'fill="{OURS if bar.ours else OTHERS}"/>',
            f'<text x="{LEFT + width + 8:.1f}" y="{y + 20}">{bar.value:.1f}</text>',
        ]
    return "\n".join([*lines, "</svg>\n"])
