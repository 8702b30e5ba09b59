"""A prediction's score: how sure the model is, so that uncertainty sampling finds what it is not.

Label Studio's uncertainty sampling shows the lowest score first, so the score is
1 - uncertainty. Measures are those of Settles, "Active Learning Literature Survey" (2009),
section 3.1, for one region whose shown label has the probability p, against all else, 1 - p:

    least_confidence   u = 1 - p
    margin             u = 1 - |p - (1 - p)|
    entropy            u = -p log2 p - (1 - p) log2 (1 - p)

A task has many regions: their mean, the largest, or their sum s as s / (1 + s), which is below 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Measure = Callable[[float], float]

DEFAULT = "least_confidence-mean"
"""With it the score is the mean of the regions' own."""


def _margin(p: float) -> float:
    return 1 - abs(2 * p - 1)


def _entropy(p: float) -> float:
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


MEASURES: Mapping[str, Measure] = {
    "least_confidence": lambda p: 1 - p,
    "margin": _margin,
    "entropy": _entropy,
}
OVER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda found: sum(found) / len(found),
    "max": max,
    "sum": lambda found: sum(found) / (1 + sum(found)),
}


def score(regions: Sequence[Any], how: str = DEFAULT, own: float | None = None) -> float:
    """The score of a prediction, 0 to 1; the most uncertain is the lowest.

    A task without regions that have a score has ``own``, else 1: of an empty scene the model is as
    sure as can be, and whoever looks for what is worth labelling first does not want all empty ones
    before it.

    Args:
        regions: as Label Studio stores them; what bears a ``score``, 0 to 1, counts.
        how: a key of `MEASURES`, a dash, and one of `OVER`.
        own: what the model says of the prediction as a whole, if anything.
    """
    measure, _, over = how.partition("-")
    uncertain = [MEASURES[measure](p) for p in map(_probability, regions) if p is not None]
    if not uncertain:
        found = _probability({"score": own})
        return 1.0 if found is None else found
    return min(1.0, max(0.0, 1 - OVER[over](uncertain)))


def _probability(region: Any) -> float | None:
    found = region.get("score") if isinstance(region, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
        return None
    return min(1.0, max(0.0, float(found)))
