"""The last hour as small charts: lines for SVG, without any of its colours or text sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ls_yolo.server.status.history import POINTS, SPAN, Point

WIDTH, HEIGHT = 360, 96
"""Of the lines' area, in units of the SVG."""
HOUR = POINTS * SPAN
"""Seconds that a chart shows."""
GAP = 2.5 * SPAN
"""Seconds without a point after which a line begins anew."""


@dataclass(frozen=True)
class Line:
    """A line of a chart; ``path``: as the attribute ``d`` of an SVG path has it, empty for none."""

    name: str
    path: str


@dataclass(frozen=True)
class Chart:
    """A chart. ``top``: what stands at its upper edge, as text with its unit; zero is at the lower
    one. ``summary``: the same in words."""

    name: str
    top: str
    lines: Sequence[Line]
    summary: str


Value = Callable[[Point], float | None]


def charts(points: Sequence[Point], now: float) -> list[Chart]:
    """Rate, queue and latency of the ``points``, the oldest first; ``now`` as `time.time`."""
    return [
        _chart("Images a second", points, now, {"all models": lambda p: p.rate}, number),
        _chart("Images that wait", points, now, {"all models": lambda p: p.waiting}, number),
        _chart(
            "Time to answer /predict",
            points,
            now,
            {"half of them": lambda p: p.median, "95 of 100": lambda p: p.slow},
            seconds,
        ),
    ]


def number(value: float) -> str:
    """With as many digits as matter."""
    if value >= 10 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.05 else f"{value:.2f}"


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _chart(
    name: str,
    points: Sequence[Point],
    now: float,
    values: dict[str, Value],
    show: Callable[[float], str],
) -> Chart:
    shown = [point for point in points if 0 <= now - point.at <= HOUR]
    highest = [max((v for p in shown if (v := of(p)) is not None), default=None) for of in
               values.values()]  # fmt: skip
    known = [value for value in highest if value is not None]
    top = ceiling(max(known, default=0.0))
    lines = [Line(line, _path(shown, now, of, top)) for line, of in values.items()]
    said = []
    for (line, of), most in zip(values.items(), highest, strict=True):
        last = of(shown[-1]) if shown else None
        what = f"{line}: " if len(values) > 1 else ""
        if most is None:
            continue
        now_text = "nothing now" if last is None else f"{show(last)} now"
        said.append(f"{what}{now_text}, {show(most)} at most")
    return Chart(name, show(top), lines, "; ".join(said) or "nothing in the last hour")


def ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... at or above ``value``; 1 for zero. Below one likewise."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(value))
    # Rounded, or 0.3 would be above 3 times 0.1.
    return next(step * unit for step in (1, 2, 5, 10) if round(step * unit, 12) >= round(value, 12))


def _path(points: Sequence[Point], now: float, of: Value, top: float) -> str:
    """A line through the values, from left to right, with gaps where there are none."""
    parts: list[str] = []
    before = -math.inf
    for point in points:
        value = of(point)
        if value is None:
            before = -math.inf
            continue
        x = WIDTH * (1 - (now - point.at) / HOUR)
        y = HEIGHT * (1 - value / top)
        if point.at - before > GAP:
            # As long as its span, so that a point alone is seen.
            start = max(x - WIDTH * point.seconds / HOUR, 0.0)
            parts.append(f"M{start:.1f} {y:.1f}")
        parts.append(f"L{x:.1f} {y:.1f}")
        before = point.at
    return "".join(parts)
